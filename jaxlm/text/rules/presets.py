"""Recipes to start from. A recipe is a tuple: add, drop or replace steps with ordinary tuple arithmetic."""

from jaxlm.text.edits.boilerplate import DropBoilerplate
from jaxlm.text.edits.c4 import C4Lines
from jaxlm.text.edits.markup import StripMarkup
from jaxlm.text.edits.pii import ScrubPII
from jaxlm.text.edits.unicode import RepairUnicode
from jaxlm.text.rules.c4 import C4Pages
from jaxlm.text.rules.chinese import ChineseQuality, ChineseRepetition
from jaxlm.text.rules.fineweb import FineWeb
from jaxlm.text.rules.gopher import GopherQuality, GopherRepetition
from jaxlm.text.rules.language import Language
from jaxlm.text.rules.repetition import Repetition
from jaxlm.text.steps import Recipe

WEB_ENGLISH: Recipe = (
    RepairUnicode(),
    StripMarkup(),
    DropBoilerplate(),
    Language(("en",)),
    GopherRepetition(),
    GopherQuality(),
    C4Lines(ends=None),
    C4Pages(),
    FineWeb(),
    Repetition(),
    ScrubPII(),
)
"""English pages, in FineWeb's order: language, Gopher, C4, FineWeb, personal data. As in FineWeb, C4's rule that a line
must end in a terminal mark is left out: alone it removed about 30 % of the tokens."""

CHINESE: Recipe = (
    RepairUnicode(),
    StripMarkup(),
    DropBoilerplate(),
    Language(("zh",)),
    ChineseQuality(),
    ChineseRepetition(),
    Repetition(min_distinct=0.0),  # its words are characters, of which there are few
    ScrubPII(),
)
"""Chinese pages."""

POETRY: Recipe = (RepairUnicode(), ChineseQuality(min_chars=10, min_punctuation=0.0), Repetition(min_distinct=0.0))
"""Chinese verse and other short texts: a line may come back, and a quatrain has 24 characters."""

CODE: Recipe = (RepairUnicode(form=None), Repetition(max_run_chars=0.5, max_echo=0.3, min_distinct=0.02), ScrubPII())
"""Source code: no rule about sentences or lines; the normal form is left alone, it would change string literals."""

LIGHT: Recipe = (RepairUnicode(), StripMarkup(), Repetition(), ScrubPII())
"""Edited text of known origin (books, speeches, encyclopedias): mend it, and judge next to nothing."""
