"""The format of a file by its first bytes, never by its name."""

from uso.language import Text

READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""Formats that are read, in Pillow's words; an MPO is read as the JPEG that it begins with."""

HEAD = 512
"""Bytes that tell a format."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

_OTHERS = (
    (b"%!PS", Text("an EPS file (PostScript)")),
    (b"\xc5\xd0\xd3\xc6", Text("an EPS file (PostScript)")),
    (b"%PDF", Text("a PDF document")),
    (b"\0\0\1\0", Text("an icon (ICO)")),
    (b"\0\0\2\0", Text("a mouse pointer (CUR)")),
    (b"icns", Text("an icon (ICNS)")),
    (b"8BPS", Text("a Photoshop document (PSD)")),
    (b"gimp xcf", Text("a GIMP document (XCF)")),
    (b"\xff\x0a", Text("a JPEG XL picture")),
    (b"\0\0\0\x0cJXL ", Text("a JPEG XL picture")),
    (b"II\xbc", Text("a JPEG XR picture")),
    (b"v/1\x01", Text("an OpenEXR picture")),
    (b"#?RADIANCE", Text("a Radiance picture (HDR)")),
    (b"DDS ", Text("a texture (DDS)")),
    (b"qoif", Text("a QOI picture")),
    (b"AT&TFORM", Text("a DjVu document")),
    (b"\xd7\xcd\xc6\x9a", Text("a Windows metafile (WMF)")),
    (b"\1\0\0\0", Text("a Windows metafile (EMF)")),
    (b"SIMPLE  =", Text("a FITS picture")),
    (b"\x0a\x05\x01\x08", Text("a PCX picture")),
    (b"FUJIFILMCCD-RAW", Text("a camera raw (RAF)")),
    (b"IIRO", Text("a camera raw (ORF)")),
    (b"IIRS", Text("a camera raw (ORF)")),
    (b"MMOR", Text("a camera raw (ORF)")),
    (b"IIU\0", Text("a camera raw (RW2)")),
    (b"FOVb", Text("a camera raw (X3F)")),
    (b"\0MRM", Text("a camera raw (MRW)")),
    (b"II\x1a\0\0\0HEAPCCDR", Text("a camera raw (CRW)")),
    (b"PK\3\4", Text("a ZIP archive or an office document")),
    (b"\x1f\x8b", Text("a compressed archive")),
    (b"\x1aE\xdf\xa3", Text("a video")),
    *((b"P%d" % number, "a Netpbm picture") for number in range(1, 8)),
)


def kind_of(head: bytes) -> str:
    """Which of `READ` a file is; empty if none of them.

    Args:
        head: its first `HEAD` bytes, or more.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return "" if head[8:10] == b"CR" and kind == "TIFF" else kind  # Canon's CR2
    if head[:4] == b"RIFF" and head[8:15] == b"WEBPVP8":
        return "WEBP"
    if head[:2] == b"BM" and len(head) >= 26 and head[15:18] == b"\0\0\0":  # the size of the second header follows
        return "BMP"
    return "AVIF" if {b"avif", b"avis"} & _brands(head) else ""


def other(head: bytes) -> str:
    """What a file is that is not read, in words; empty where it is not known."""
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return Text("a camera raw (CR2)")
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    brands = _brands(head)
    if b"crx " in brands:
        return Text("a camera raw (CR3)")
    if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}:
        return Text("a HEIC picture")
    if brands:
        return Text("a video")
    text = head[:HEAD].decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "replace").lower()
    if "<svg" in text:
        return Text("an SVG drawing")
    if "<html" in text or "<!doctype html" in text:
        return Text("a web page (HTML)")
    return Text("an EPS file (PostScript)") if "%!ps" in text else ""


def _brands(head: bytes) -> set[bytes]:
    """What the first box of an ISO media file says that it holds."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head), HEAD)
    return {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
