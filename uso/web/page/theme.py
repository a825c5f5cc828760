"""Colours, type and shapes of the page, as a Gradio theme; and `static/`, the CSS and JavaScript that come on top.

One colour (burnt sienna) on warm greys. The font comes with Gradio, in the two weights whose files are complete, so
nothing is fetched from elsewhere.
"""

import hashlib
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).with_name("static")

CSS = sorted(STATIC.glob("*.css"))
"""One file for each part of the page. Their order does not matter."""


def _digest() -> str:
    files = sorted(STATIC.glob("*.js"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


STATIC_ROUTE = f"page-{_digest()}"
"""Address of `static/`, relative to the page. It changes with the scripts, so that no browser runs old ones."""

HEAD = (
    "".join(f'<link rel="modulepreload" href="{STATIC_ROUTE}/{file.name}">' for file in sorted(STATIC.glob("*.js")))
    + f'<script type="module" src="{STATIC_ROUTE}/main.js"></script>'
)
"""The scripts, which come all at once and not one after the other. Until they are there, the page does without."""

SIENNA = gr.themes.Color(
    name="sienna",
    c50="#fbf5f1",
    c100="#f6e8df",
    c200="#ecd0bf",
    c300="#deb094",
    c400="#cd8a66",
    c500="#b4663f",
    c600="#98502d",
    c700="#7c4025",
    c800="#5f3220",
    c900="#47281c",
    c950="#2b170f",
)


CHINESE = ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC")
"""Fonts of the systems themselves, for what the first ones lack."""


def page_theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=SIENNA,
        secondary_hue=SIENNA,
        neutral_hue="stone",
        text_size="md",
        spacing_size="md",
        radius_size="md",
        font=[gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", *CHINESE, "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_background_fill="*block_background_fill",
        block_label_background_fill_dark="*block_background_fill",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_label_text_weight="700",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_700",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited="*primary_600",
        link_text_color_visited_dark="*primary_300",
        link_text_color_active="*primary_700",
        link_text_color_active_dark="*primary_200",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
    )
