"""One page with everything inside: it opens without a network, and loads nothing."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

_CSS = """
:root { color-scheme: light dark; --line: #c8ccd2; --soft: #5a6472; --back: #fff; --text: #1b1f24; --plot: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #a0aab6; --back: #14171b; --text: #e6e9ec; --plot: #f4f4f2; }
}
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
figure svg, figure img { max-width: 100%; height: auto; background: var(--plot); border-radius: 4px; }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n<h1>{html.escape(title)}"
        f"</h1>\n{chr(10).join(parts)}\n</main>\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def bullets(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def table(rows: Sequence[Sequence[str]], name: str) -> str:
    """Rows, the first of which are headings; the name is for those who do not see what stands above."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    label = html.escape(name, quote=True)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def plot(svg: str, caption: str) -> str:
    named = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(caption, quote=True)}"', 1)
    return f"<figure>{named}<figcaption>{html.escape(caption)}</figcaption></figure>"


def picture(data: bytes, caption: str) -> str:
    """A WebP file's bytes."""
    source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    text = html.escape(caption, quote=True)
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def webp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=82, method=4)
    return file.getvalue()
