"""From token bytes to text that may be shown: whole characters only, and never a part of a stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """Takes the bytes of each new token, gives back text that is final.

    Holds back an unfinished UTF-8 character, and a tail that a stop string could begin with. After `stopped` is set,
    the text ended before that stop string and nothing more comes.
    """

    def __init__(self, stop: list[str]) -> None:
        self._stop = [s for s in stop if s]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped: str | None = None

    def feed(self, piece: bytes) -> str:
        """Text that has become final with these bytes; often the piece itself, sometimes nothing."""
        text = self._decoder.decode(piece)
        return self._release(text) if self._stop else text

    def finish(self) -> str:
        """What was still held back when the sequence ended."""
        if self.stopped:
            return ""
        rest = self._decoder.decode(b"", final=True)
        if not self._stop:
            return rest
        shown = self._release(rest)
        shown, self._held = (shown, "") if self.stopped else (shown + self._held, "")
        return shown

    def _release(self, text: str) -> str:
        self._held += text
        found = [(self._held.find(s), s) for s in self._stop if s in self._held]
        if found:
            at, self.stopped = min(found, key=lambda hit: (hit[0], -len(hit[1])))
            shown, self._held = self._held[:at], ""
            return shown
        keep = self._longest_beginning()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _longest_beginning(self) -> int:
        """Length of the longest tail of the held text that some stop string begins with."""
        longest = 0
        for s in self._stop:
            for size in range(min(len(s) - 1, len(self._held)), longest, -1):
                if self._held.endswith(s[:size]):
                    longest = size
                    break
        return longest
