"""Language and direction of a Word paragraph's text.

Owns: where in its format they stand, whose order is fixed.
Does not know: how a text becomes runs (`docx_runs.py`); the document's own language.
Units: paragraphs.
"""

from __future__ import annotations

from lxml import etree

from .document import Edition
from .docx_runs import names, w

# what stands before w:bidi in w:pPr and after w:rtl in w:rPr: their order is fixed
_BEFORE_BIDI = names(
    "pStyle keepNext keepLines pageBreakBefore framePr widowControl numPr suppressLineNumbers pBdr shd "
    "tabs suppressAutoHyphens kinsoku wordWrap overflowPunct topLinePunct autoSpaceDE autoSpaceDN"
)
_AFTER_RTL = names("cs em lang eastAsianLayout specVanish oMath rPrChange")


def set_language(paragraph: etree._Element, edition: Edition) -> None:
    """Marks a paragraph's text as of the new language and its direction."""
    if edition.language is None:
        return
    right_to_left = bool(edition.right_to_left)
    _set_bidi(paragraph, right_to_left)
    for run in paragraph.iter(w("r")):
        if run.find(w("t")) is None or next(run.iterancestors(w("p"))) is not paragraph:
            continue
        properties = run.find(w("rPr"))
        if properties is None:
            properties = run.makeelement(w("rPr"))
            run.insert(0, properties)
        for name in ("lang", "rtl"):
            for old in properties.findall(w(name)):
                properties.remove(old)
        later = next((at for at, child in enumerate(properties) if child.tag in _AFTER_RTL), len(properties))
        if right_to_left:
            properties.insert(later, properties.makeelement(w("rtl")))
        if edition.bilingual:
            lang = properties.makeelement(w("lang"))
            lang.set(w("bidi" if right_to_left else "val"), edition.language)
            _insert_lang(properties, lang)
        if not len(properties):
            run.remove(properties)


def _insert_lang(properties: etree._Element, lang: etree._Element) -> None:
    last = names("eastAsianLayout specVanish oMath rPrChange")
    properties.insert(next((at for at, c in enumerate(properties) if c.tag in last), len(properties)), lang)


def _set_bidi(paragraph: etree._Element, right_to_left: bool) -> None:
    properties = paragraph.find(w("pPr"))
    if properties is None:
        if not right_to_left:
            return
        properties = paragraph.makeelement(w("pPr"))
        paragraph.insert(0, properties)
    for old in properties.findall(w("bidi")):
        properties.remove(old)
    if right_to_left:
        at = sum(child.tag in _BEFORE_BIDI for child in properties)
        properties.insert(at, properties.makeelement(w("bidi")))
