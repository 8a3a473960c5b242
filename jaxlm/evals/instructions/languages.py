"""In which language is an answer written? By its script, and where scripts are shared by commonest words and letters.

Enough to tell whether "answer in Hindi" was followed; no identifier of short or mixed text.
"""

import re
import unicodedata
from collections import Counter

_OWN_SCRIPT = {
    "HANGUL": "ko", "BENGALI": "bn", "GUJARATI": "gu", "GURMUKHI": "pa", "KANNADA": "kn", "MALAYALAM": "ml",
    "TAMIL": "ta", "TELUGU": "te", "THAI": "th", "GREEK": "el", "HEBREW": "he", "ARMENIAN": "hy", "GEORGIAN": "ka",
    "KHMER": "km", "LAO": "lo", "MYANMAR": "my", "SINHALA": "si", "ETHIOPIC": "am",
}  # fmt: skip
_SHARED_SCRIPT: dict[str, dict[str, str]] = {
    "LATIN": {
        "en": "the of and to in is that it for you with was are be this have not on as at",
        "de": "der die und das ist nicht ein eine ich zu den mit für auf sich von dem im wir auch",
        "fr": "le la les et des est un une que dans pour pas qui sur avec ce vous nous au du",
        "es": "el la los que de y en un una por con para es no las del se su como más",
        "pt": "o que de e um uma não para com os do da em no na se mais como você são",
        "it": "il che di e un una per non con sono la gli del della è in le si come più",
        "nl": "de het een en van is dat niet op te zijn voor met die aan ik je er ook maar",
        "sv": "och att det en som är på för med av inte den till har jag ett om så vi men",
        "da": "og at det en er på for med af ikke den til har jeg et som om så vi men der",
        "fi": "ja on ei se että hän oli ovat mutta niin kun kuin joka tämä myös sen ole minä he voi",
        "pl": "i w nie na się że z do jest to jak o ale po co tak za od przez jego",
        "tr": "ve bir bu için de da ile çok ne ben mi gibi var daha ama olarak sen o kadar olan",
        "id": "yang dan di itu dengan untuk dari tidak ini ke pada adalah akan dalam saya bisa kamu ada juga atau",
        "vi": "và là của có không cho một được trong người với các này để những tôi đã như khi bạn",
        "sw": "na ya wa kwa ni katika la za kuwa hii cha kama hiyo yake lakini sana mtu watu ili au",
    },
    "CYRILLIC": {
        "ru": "и в не на что я с он как это по но вы из то за к для мы было",
        "uk": "і в не на що я з він як це та але ви із то за до для ми було є",
        "bg": "и в не на че да се е за от са с по като това но ще той ние си",
        "sr": "и у је да се на не за што од су са као али то он ми сам ће",
    },
    "ARABIC": {
        "ar": "في من على أن إلى هذا هذه التي الذي لا ما هو كان عن مع أو ذلك كل هي قد",
        "fa": "و در به از که این را با است برای آن یک می خود تا بر هم شود او است",
        "ur": "کے میں کی ہے اور سے کا کو اس نے ہیں یہ پر کہ بھی ایک کر تھا جو نہیں",
    },
    "DEVANAGARI": {
        "hi": "के में है की और से का को हैं पर यह ने भी एक कि नहीं इस हो लिए था",
        "mr": "आहे आणि या ते च्या मध्ये हे एक आहेत तो ही नाही होते साठी तर की त्या करण्यासाठी व मी",
        "ne": "छ र को मा हो छन् यो पनि गर्न भएको लागि एक हुन्छ थियो गर्ने तर ले म यस गरेको",
    },
}  # fmt: skip
_SIMPLIFIED = (
    "们这来时国说对会为学个发过还没开关问题让应该认识话语见车门马鸟鱼书爱战东长边进远运动机电视气头买卖儿写听谁请"
)
_TRADITIONAL = (
    "們這來時國說對會為學個發過還沒開關問題讓應該認識話語見車門馬鳥魚書愛戰東長邊進遠運動機電視氣頭買賣兒寫聽誰請"
)
_BARE_S, _BARE_T = (
    set(_SIMPLIFIED) - set(_TRADITIONAL),
    set(_TRADITIONAL) - set(_SIMPLIFIED),
)
# Vowel signs of Devanagari and Arabic are marks, which no class of letters holds.
_PIECES = re.compile(r"[\u0900-\u0963\u0966-\u097f]+|[\u0610-\u06d3\u06d5-\u06ff]+|[^\W\d_]+")
_LEAST_SHARE = 0.6
"""Of the letters, in the language's script."""

LANGUAGES = tuple(sorted({*_OWN_SCRIPT.values(), *(one for each in _SHARED_SCRIPT.values() for one in each),
                          "zh", "zh-hans", "zh-hant", "ja"}))  # fmt: skip
"""Codes that `is_in` knows."""


def detect(text: str) -> str | None:
    """The code of the language; None for a text without letters, in several scripts, or in a script unknown here.

    >>> detect("the cat is on the mat"), detect("猫在垫子上。"), detect("猫はマットの上にいます")
    ('en', 'zh', 'ja')
    """
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts["CJK"]:
        scripts["JAPANESE"] = scripts.pop("HIRAGANA", 0) + scripts.pop("KATAKANA", 0) + scripts.pop("CJK", 0)
    if not scripts:
        return None
    script, count = scripts.most_common(1)[0]
    if count < _LEAST_SHARE * scripts.total():
        return None
    if script in ("CJK", "JAPANESE"):
        return "zh" if script == "CJK" else "ja"
    if script in _OWN_SCRIPT:
        return _OWN_SCRIPT[script]
    said = Counter(_PIECES.findall(text.lower()))
    hits = {code: sum(said[word] for word in common.split()) for code, common in _SHARED_SCRIPT.get(script, {}).items()}
    best = max(hits, key=lambda code: hits[code], default=None)
    return best if best is not None and hits[best] else None


def is_in(text: str, language: str) -> bool:
    """Whether a text is in a language of `LANGUAGES`; "zh-hans", "zh-hant": simplified and traditional Chinese."""
    found = detect(text)
    if not language.startswith("zh-"):
        return found == language
    simple, traditional = sum(one in _BARE_S for one in text), sum(one in _BARE_T for one in text)
    return found == "zh" and (simple >= traditional if language == "zh-hans" else traditional >= simple)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0].split("-")[0]
