// Pictures for models that see: read in the browser, made small enough, sent inside the request.

const MAX_SIDE = 1344; // pixels; what models look at is smaller
const MAX_BYTES = 20_000_000;
const QUALITY = 0.88;

/** { name, url } with a data URL; throws an Error that says what is wrong. */
export async function readImage(file) {
  if (!file.type.startsWith("image/")) throw new Error(`${file.name}: not an image`);
  if (file.size > MAX_BYTES) throw new Error(`${file.name}: larger than ${MAX_BYTES / 1e6} MB`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name}: this browser cannot read the image`);
  }
  try {
    return { name: file.name || "image", url: draw(bitmap, file.type) };
  } finally {
    bitmap.close();
  }
}

function draw(bitmap, type) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  const isJpeg = type === "image/jpeg" || canvas.width * canvas.height > 500_000;
  if (isJpeg) {
    context.fillStyle = "white"; // JPEG has no transparency
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return isJpeg ? canvas.toDataURL("image/jpeg", QUALITY) : canvas.toDataURL("image/png");
}

/** The image files of a paste or a drop. */
export function imageFiles(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}
