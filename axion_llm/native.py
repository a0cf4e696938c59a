"""Our native libraries as seen from Python: where they are, whether they are the right ones, which kernels are on.

`libggml-cpu` answers for itself through the "axion_info" function (patches/ggml-axion/axion.h). A library without it
is upstream's; one whose build id differs from the stamp beside it, or whose release differs from the bindings', does
not belong here. Both are NativeLibraryError.
"""

from __future__ import annotations

import ctypes
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from axion_llm.config import library_dir, limit_spinning, rung
from axion_llm.errors import NativeLibraryError

ABI = 3
REBUILD = "build them with `scripts/build` (in a clone) or reinstall the package"


class _Api(ctypes.Structure):
    """struct axion_api of axion.h."""

    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("build_id", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
        ("num_kernels", ctypes.c_uint32),
        ("kernel_names", ctypes.POINTER(ctypes.c_char_p)),
        ("get_enabled", ctypes.CFUNCTYPE(ctypes.c_uint64)),
        ("set_enabled", ctypes.CFUNCTYPE(None, ctypes.c_uint64)),
        ("get_calls", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)),
        ("get_barriers", ctypes.CFUNCTYPE(ctypes.c_uint64)),
        ("measure_peak", ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_uint32, ctypes.c_double)),
    )


PEAKS = ("f32", "int8", "bf16", "read")  # kinds of measure_peak: operations per second, bytes per second
SCALAR = ("soft_max", "rms_norm", "swiglu")  # kinds behind them: values per second of plain code with libm
TILES = ("amx_int8", "amx_bf16")  # and behind those: operations per second of whole AMX tiles


@dataclass(frozen=True)
class Kernel:
    name: str
    enabled: bool
    calls: int  # graph nodes it has computed in this process


class NativeLibrary:
    """The loaded and verified library."""

    def __init__(self, directory: Path, api: _Api) -> None:
        self.directory = directory
        self._api = api

    @property
    def build_id(self) -> str:
        return str(self._api.build_id.decode())

    @property
    def isa(self) -> str:
        return str(self._api.isa.decode())

    def kernels(self) -> list[Kernel]:
        mask = self._api.get_enabled()
        names = [self._api.kernel_names[i].decode() for i in range(self._api.num_kernels)]
        return [Kernel(name, bool(mask >> i & 1), self._api.get_calls(i)) for i, name in enumerate(names)]

    def num_calls(self) -> int:
        """Graph nodes that our kernels have computed in this process so far."""
        return sum(self._api.get_calls(i) for i in range(self._api.num_kernels))

    def num_calls_of(self, name: str) -> int:
        """The same of one kernel; 0 for one that this library does not have."""
        return next((kernel.calls for kernel in self.kernels() if kernel.name == name), 0)

    def num_barriers(self) -> int:
        """Barriers between the threads of the graphs that the calling thread has computed so far."""
        return int(self._api.get_barriers())

    def enable(self, names: set[str]) -> None:
        """Switch exactly these kernels on. Only while no graph is being computed."""
        all_names = [k.name for k in self.kernels()]
        self._api.set_enabled(sum(1 << i for i, name in enumerate(all_names) if name in names))

    def peak(self, kind: str, num_threads: int, seconds: float = 0.3) -> float:
        """What `num_threads` cores together do at best: one of PEAKS or TILES; 0 where the CPU has no such instruction.

        Or one of SCALAR.
        """
        with ThreadPoolExecutor(num_threads) as threads:
            index = (PEAKS + SCALAR + TILES).index(kind)
            return sum(threads.map(lambda _: float(self._api.measure_peak(index, seconds)), range(num_threads)))


def load(directory: Path | None = None) -> NativeLibrary:
    """Load the libraries and check that they are ours and fit the bindings; NativeLibraryError says what is wrong."""
    directory = directory or library_dir()
    stamp = read_stamp(directory)
    api = _ask_library(directory)
    if api.abi != ABI:
        raise NativeLibraryError(f"the libraries in {directory} speak ABI {api.abi}, this package {ABI}: {REBUILD}")
    build_id = api.build_id.decode()
    if build_id != stamp.get("build_id"):
        raise NativeLibraryError(
            f"libggml-cpu in {directory} is build {build_id}, its stamp says {stamp.get('build_id')}: "
            f"libraries of two builds are mixed; {REBUILD}"
        )
    _check_bindings(build_id)
    return NativeLibrary(directory, api)


def read_stamp(directory: Path) -> dict[str, str]:
    try:
        stamp: dict[str, str] = json.loads((directory / "build.json").read_text())
    except FileNotFoundError:
        raise NativeLibraryError(f"no native libraries in {directory}: {REBUILD}") from None
    except ValueError as e:
        raise NativeLibraryError(f"{directory / 'build.json'} is damaged ({e}): {REBUILD}") from None
    return stamp


PLAINEST = ("libggml-cpu-x64.so", "libggml-cpu-armv8.0_1.so")  # variants of a portable build, by architecture


def _load_baseline(directory: Path) -> None:
    """Before libggml, which then takes it for the CPU backend that it asks for: it has that one's name."""
    path = directory / "libaxion-baseline.so"
    if not path.exists() and _plainest_variant(directory):
        return
    try:
        ctypes.CDLL(str(directory / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as e:
        raise NativeLibraryError(f"cannot load {path} ({e}): {REBUILD}") from None


def _plainest_variant(directory: Path) -> Path | None:
    return next((directory / name for name in PLAINEST if (directory / name).exists()), None)


def _ask_library(directory: Path) -> _Api:
    limit_spinning()
    if is_baseline := rung() == "baseline":
        _load_baseline(directory)
    try:
        ggml = ctypes.CDLL(str(directory / "libggml.so"), mode=ctypes.RTLD_GLOBAL)
    except OSError as e:
        raise NativeLibraryError(f"cannot load {directory / 'libggml.so'} ({e}): {REBUILD}") from None
    if is_baseline and (plainest := _plainest_variant(directory)):
        ggml.ggml_backend_load(str(plainest).encode())
    elif not is_baseline:
        # A portable build keeps one CPU backend per generation in files of their own; the best one is loaded here.
        ggml.ggml_backend_load_all_from_path(str(directory).encode())
    ggml.ggml_backend_reg_by_name.restype = ctypes.c_void_p
    registry = ggml.ggml_backend_reg_by_name(b"CPU")
    if not registry:
        raise NativeLibraryError(f"the libraries in {directory} have no CPU backend for this machine: {REBUILD}")
    ask = ggml.ggml_backend_reg_get_proc_address  # in libggml-base, which it depends on
    ask.restype = ctypes.c_void_p
    ask.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    address = ask(registry, b"axion_info")
    if not address:
        raise NativeLibraryError(f"the libraries in {directory} are stock llama.cpp, without our kernels: {REBUILD}")
    api: _Api = ctypes.CFUNCTYPE(ctypes.POINTER(_Api))(address)().contents
    return api


def _check_bindings(build_id: str) -> None:
    try:
        bindings = version("llama-cpp-python")
    except PackageNotFoundError:
        raise NativeLibraryError("the Python package llama-cpp-python is not installed") from None
    release = build_id.rpartition("-")[0]
    if bindings != release:
        raise NativeLibraryError(
            f"llama-cpp-python {bindings} is installed, the libraries are of {release}: "
            f"install llama-cpp-python=={release}"
        )
