"""Image files as bytes: which format they have, what of them carries pixels, and what decoding them would cost.

    kinds       the format of a file by its first bytes, never by its name
    reader      `prepare`: any file becomes an `ImageData`, or is refused in a sentence
    contents    what the others share: `ImageData`, `Refusal`, limits, the orientation in EXIF and XMP
    png         PNG: chunks
    jpeg        JPEG: segments, and how many scans there are
    tiff        TIFF: directories, camera raws, previews
    jpeg2000    JPEG 2000: tiles, code blocks, precincts
    simple      WebP, GIF and BMP
    colours     decoded pixels of any mode and profile become 8-bit sRGB on white

Only what a decoder needs is handed to Pillow: damaged or huge metadata cost no picture, and no time.
"""
