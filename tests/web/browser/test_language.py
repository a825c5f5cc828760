"""The page in Chinese: the loop that people live in, and nothing left in English."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.axe import faults_in_both_themes
from tests.support.browsing import EXAMPLES, FAST, PATIENCE_MS, fill_number, needs_chromium, shoot
from tests.support.running import Program
from uso.web.page.texts import PROMPTS, TIPS

pytestmark = [pytest.mark.slow, needs_chromium]

ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,.]+[A-Za-z]{2,})+")
"""Two English words or more, one after another."""

GRADIO = re.compile(
    "Upload file|Click to upload or drop files|Paste from clipboard|Empty value|Reset to default value|"
    "Gradio footer navigation|(range slider|number input) for .*"
)
"""What Gradio says in English in every language, to screen readers."""

PROMPT = "The fox stands in the snow."


def left_in_english(page: Page) -> set[str]:
    """What people read or hear that is English, but for prompts to try, which are for the model, and commands."""
    texts = page.evaluate(
        """() => {
          const found = []
          const seen = element => element.checkVisibility({ visibilityProperty: true })
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
          for (let node; (node = walker.nextNode());)
            if (seen(node.parentElement) && !node.parentElement.closest('code, script, style')) found.push(node.data)
          for (const element of document.querySelectorAll('[aria-label], [placeholder], [title]')) {
            if (!seen(element) || element.closest('#examples')) continue
            for (const name of ['aria-label', 'placeholder', 'title']) found.push(element.getAttribute(name) ?? '')
          }
          return found
        }"""
    )
    tried = [*(example.prompt for example in EXAMPLES), *PROMPTS["drawn"]]
    allowed = " ".join([PROMPT, *tried, *(text for _, text in TIPS["drawn"])])
    foreign = {text.strip() for text in texts if any(part not in allowed for part in ENGLISH.findall(text))}
    return {text for text in foreign if not GRADIO.fullmatch(text)}


@pytest.mark.parametrize(("width", "height"), [(1440, 789), (1366, 657), (390, 844)])
def test_the_loop_in_chinese(visit: Any, server: Program, tmp_path: Path, width: int, height: int) -> None:
    """Catches a label, a status or a refusal that nobody translated, a width that Chinese does not fit into, and a page
    that tells screen readers and fonts another language than it speaks."""
    page = visit(server, width, height, locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    expect(page.locator("#generate")).to_have_text("生成", timeout=PATIENCE_MS)
    shoot(page, f"chinese-{width}")
    assert left_in_english(page) == set()
    page.fill("#prompt textarea", "雪地里的狐狸")
    expect(page.locator("#tokens")).to_contain_text("读的是英文", timeout=PATIENCE_MS)
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_contain_text("请用英文书写", timeout=PATIENCE_MS)
    shoot(page, f"chinese-refused-{width}")
    (tmp_path / "笔记.png").write_bytes(b"%PDF-1.4")
    page.set_input_files("#style input[type=file]", tmp_path / "笔记.png")
    expect(page.locator("#refusal")).to_contain_text("这是PDF 文档。", timeout=PATIENCE_MS)
    assert left_in_english(page) == set()
    page.fill("#prompt textarea", PROMPT)
    fill_number(page, "steps", FAST)
    page.click("#generate")
    expect(page.locator("#status")).to_contain_text("完成。", timeout=PATIENCE_MS)
    page.click("#settings-frame button >> nth=0")
    expect(page.locator("#settings")).to_contain_text("提示词")
    assert left_in_english(page) == set()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert faults_in_both_themes(page, f"chinese-done-{width}") == []
