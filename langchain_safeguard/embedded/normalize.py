"""Undo the disguises that a reader sees through and a tokenizer does not.

Every step runs in time linear in the text and accepts any `str`. The guard scores the normalised
text; what the application sees is never changed.
"""

from __future__ import annotations

import re
import unicodedata

_SURROGATES = re.compile("[\ud800-\udfff]")
# Format characters (zero width, bidirectional marks, soft hyphen, byte order mark), variation
# selectors, Hangul fillers, and controls other than tab and line breaks: all invisible.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e007f-\U000e0fff]"
)
# Combining accents that composition leaves behind are stacked for effect ("zalgo").
_STACKED = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+")


def _letters_table() -> dict[int, str]:
    table: dict[int, str] = {0x2800: " ", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
    # Tag characters spell ASCII that only a model reads: judge what it says.
    table |= {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
    for first in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6):  # squared, circled and flag letters
        table |= {first + place: chr(65 + place) for place in range(26)}
    small = "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ"
    table |= dict(zip(map(ord, small), "abcdefghijklmnopqrstuvwyz", strict=True))
    turned = "ɐɔǝɟɓɥᴉɾʞɯɹʇʌʍʎ"
    table |= dict(zip(map(ord, turned), "acefghijkmrtvwy", strict=True))
    return table


_LETTERS = _letters_table()
_LOOK_ALIKES = {
    ord(foreign): latin
    for foreign, latin in zip(
        "аАвВеЕкКмМнНоОрРсСтТуУхХіІјЈѕЅԁԛԜԝһҺӏҮүѵαΑβΒεΕηΗιΙκΚμΜνΝοΟρΡτΤυΥχΧζΖγωϲϳ",
        "aAbBeEkKmMhHoOpPcCtTyYxXiIjJsSdqWwhHlYyvaAbBeEnHiIkKuMvNoOpPtTuYxXzZywcj",
        strict=True,
    )
}
# Compatibility letters: laughter (ㅋㅋㅋ) and abbreviations (ㅅㅂ) stay as people write them, which
# compatibility normalisation would change.
_JAMO = re.compile("[\u3131-\u3163]{2,}")
_OTHER_THAN_JAMO = re.compile("[^\u3131-\u3163]+")
_LEADS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_VOWEL_SET = frozenset(_VOWELS)
_FINALS = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z]")
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f]")

_LEET = str.maketrans("0134578@$!|€£", "oieastbasilel")
_CHUNK = re.compile(r"\S+")
_LEET_WORD = re.compile(r"[A-Za-z0134578@$!|€£]{4,20}")
_LEET_RUN = re.compile(r"[0134578@$!|€£]+")
_ONE = r"[A-Za-z\uac00-\ud7a3]"
_SPACED = re.compile(rf"(?<![^\W_])(?:{_ONE}([ .\-_*·,/~]))(?:{_ONE}\1){{2,}}{_ONE}(?![^\W_])")


def normalize(text: str) -> str:
    """Return `text` as a reader would take it.

    Invisible characters go, full-width, mathematical, circled and small-capital letters become
    plain ones, single Hangul letters join into syllables, Cyrillic and Greek look-alikes inside
    Latin words become Latin, and leetspeak (`k1ll`) and spaced-out words (`k i l l`) are spelled
    out. Words wholly in another script, numbers, and names such as `3D` or `h264` stay.

    Args:
        text: Any string, lone surrogates included.

    Returns:
        The normalised text; never longer than 18 times the input (a property of NFKC).
    """
    if not text.isascii():
        text = _plain_letters(_SURROGATES.sub("\ufffd", text))
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = _WORD.sub(_latin_word, text)
    text = _SPACED.sub(_joined, text)
    return _CHUNK.sub(_plain_word, text)


def _plain_letters(text: str) -> str:
    text = _INVISIBLE.sub("", text.translate(_LETTERS))
    return _STACKED.sub("", _OTHER_THAN_JAMO.sub(_composed, _JAMO.sub(_syllables, text)))


def _composed(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0])


def _syllables(found: re.Match[str]) -> str:
    """Join single Hangul letters (consonant, vowel, perhaps a final) into syllables."""
    letters, place, out = found[0], 0, []
    while place < len(letters):
        lead = _LEADS.find(letters[place])
        vowel = _VOWELS.find(letters[place + 1 : place + 2] or " ")
        if lead < 0 or vowel < 0:
            out.append(letters[place])
            place += 1
            continue
        place += 2
        final = _FINALS.find(letters[place : place + 1] or " ") + 1
        # A consonant before a vowel begins the next syllable.
        if final and letters[place + 1 : place + 2] in _VOWEL_SET:
            final = 0
        place += final > 0
        out.append(chr(0xAC00 + (lead * 21 + vowel) * 28 + final))
    return "".join(out)


def _latin_word(found: re.Match[str]) -> str:
    word = found[0]
    if word.isascii() or not (_LATIN.search(word) and _FOREIGN.search(word)):
        return word
    return word.translate(_LOOK_ALIKES)


def _joined(found: re.Match[str]) -> str:
    return found[0].replace(found[1], "")


def _plain_word(found: re.Match[str]) -> str:
    chunk = found[0]
    if chunk.isalpha() or not _LEET_RUN.search(chunk):
        return chunk
    # Addresses, paths and code keep their digits and signs.
    if any(sign in chunk for sign in "/\\=(){}[]<>_:#&") or ("@" in chunk and "." in chunk):
        return chunk
    return _LEET_WORD.sub(_spelled_out, chunk)


def _spelled_out(found: re.Match[str]) -> str:
    word = found[0]
    core = word.rstrip("!|")
    runs = _LEET_RUN.findall(core)
    signs = sum(map(len, runs))
    # Digits at the end are versions and counts (h264, covid19, mp3), digits in front numbers and
    # codes (0day, 0x3f), mixed runs are codes too.
    if (
        not runs
        or core[-1].isdigit()
        or signs * 2 > len(core)
        or any(len(set(r)) > 1 for r in runs)
    ):
        return word
    if core[0].isdigit():
        return word
    return core.translate(_LEET) + word[len(core) :]
