"""Lines with a place for a name, in English and in German, for the tests of names."""

from __future__ import annotations

SCENES = {
    "That morning {} went on deck.": "An jenem Morgen ging {} an Deck.",
    "Everybody looked at {} in silence.": "Alle sahen schweigend auf {} und warteten.",
    "The men had heard {} singing.": "Die Männer hatten {} singen gehört.",
    "Last night {} slept badly.": "Letzte Nacht schlief {} schlecht.",
    "We all knew {} very well.": "Wir alle kannten {} sehr gut.",
}
