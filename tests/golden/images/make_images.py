# SPDX-License-Identifier: Apache-2.0
"""Makes the small pictures of image_file_test.cc with Pillow: python3 make_images.py

All show the same 32 x 16 picture: red, green, blue and white quarters (top left, top right, bottom
left, bottom right).
"""
import pathlib

from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
ORIENTATION_TAG = 0x0112
# How the upright picture is stored for each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def picture():
    image = Image.new("RGB", (32, 16), (255, 0, 0))
    image.paste((0, 255, 0), (16, 0, 32, 8))
    image.paste((0, 0, 255), (0, 8, 16, 16))
    image.paste((255, 255, 255), (16, 8, 32, 16))
    return image


def main():
    upright = picture()
    upright.save(HERE / "rgb.png")
    upright.save(HERE / "rgb.bmp")
    translucent = upright.copy()
    translucent.putalpha(10)
    translucent.save(HERE / "rgba.png")
    upright.quantize(8).save(HERE / "palette.png")
    second = Image.new("RGB", upright.size, (0, 0, 0))
    upright.save(HERE / "two_frames.gif", save_all=True, append_images=[second], duration=100)
    for orientation, method in STORED.items():
        stored = upright if method is None else upright.transpose(method)
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        path = HERE / f"orientation_{orientation}.jpg"
        stored.save(path, exif=exif, quality=95, subsampling=0)
        back = ImageOps.exif_transpose(Image.open(path))
        assert back.size == upright.size, orientation
        assert back.getpixel((2, 2))[0] > 200 and back.getpixel((2, 2))[1] < 60, orientation


if __name__ == "__main__":
    main()
