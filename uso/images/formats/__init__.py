"""Image files as bytes: their format, the parts that carry pixels, and the cost of decoding.

    kinds       the format of a file by its first bytes, never by its name
    reader      `prepare`: a file becomes an `ImageData`, or is refused with a sentence
    contents    shared by the others: `ImageData`, `Refusal`, limits, the orientation in EXIF and XMP
    png         PNG: chunks
    jpeg        JPEG: segments, and how many scans there are
    tiff        TIFF: directories, camera raws, previews
    jpeg2000    JPEG 2000: tiles, code blocks, precincts
    simple      WebP, GIF and BMP
    colours     decoded pixels of any mode and profile become 8-bit sRGB on white

Pillow gets only what a decoder needs, so damaged or huge metadata does no harm.
"""
