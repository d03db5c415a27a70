"""Markdown of notebooks and documents as HTML, with formulas as MathML: a page needs no network and runs no script for them."""

from __future__ import annotations

import re
from html import escape, unescape
from xml.etree.ElementTree import tostring

from latex2mathml.converter import convert_to_element
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

DOUBLE = {"1": "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}", "E": "\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL E}"}
"""Browsers draw no double-struck letter from MathML's attribute, but each from its own character."""


class _Renderer(IPythonRenderer):
    """HTML that is escaped, without anchors beside headings; what may be wider than the page scrolls in a box of its own."""

    def __init__(self) -> None:
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True)

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return f'<div class="formula">{mathml(body, "block")}</div>\n'

    def table(self, text: str) -> str:
        return f'<div class="scroll" tabindex="0"><table>\n{text}</table></div>\n'


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML, or as it is written where it cannot be read. display: 'inline' or 'block'.

    The converter's own text would hold markup that stands in the formula: its tree is escaped here instead.
    """
    readable = re.sub(r"\\mathbb\{([1E])\}", lambda letter: DOUBLE[letter[1]], formula).replace(r"\log ", r"\log\,")
    try:
        tree = convert_to_element(readable, display=display)
    except Exception:  # the converter's errors share no other class
        return f"<code>{escape(formula)}</code>"
    for element in tree.iter():
        element.text = unescape(element.text or "")
        element.attrib.pop("href", None)
    return tostring(tree, encoding="unicode")


def markdown(text: str) -> str:
    """Markdown as HTML. Links to notebooks and to other documents would lead nowhere from a page: their text alone stays."""
    text = re.sub(r"\[([^\]]+)\]\([\w./]+\.(?:ipynb|md)\)", r"\1", text)
    return str(MarkdownWithMath(renderer=_Renderer()).render(text))
