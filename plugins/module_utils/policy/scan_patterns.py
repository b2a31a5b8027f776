# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Patterns of personal data in text, and how a find is shown without repeating it. Pure.

Two sets. Text gets the wide one. Numbers that happen to be printable (pixels!) get a narrow one: in 100 MB of noisy
8-bit images it has to find nothing, so it wants a checksum, a label, or a shape that noise does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

CERTAIN, SUSPECT = "certain", "suspect"


class Find(NamedTuple):
    """One find: what kind, how sure, the masked text, and where in the text it begins."""

    kind: str
    sure: str
    masked: str
    start: int


_TLD = (
    r"(?:com|org|net|edu|gov|mil|int|info|biz|dev|app|cloud|health|hospital|eu|de|at|ch|fr|it|es|pt|nl|be|lu|dk|se|no"
    r"|fi|is|ie|uk|pl|cz|sk|hu|ro|bg|gr|hr|si|ee|lv|lt|mt|cy|us|ca|mx|br|ar|cl|au|nz|jp|cn|kr|in|sg|za|il|tr|ua|ru|io"
    r"|ai|co|me|tv|example|test|invalid)"
)
_EMAIL_WIDE = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[A-Za-z]{2,24}(?![\w-])")
_EMAIL_NARROW = re.compile(
    rf"(?<![A-Za-z0-9])[a-z0-9][a-z0-9._-]{{3,63}}@[a-z0-9-]{{3,63}}(?:\.[a-z0-9-]+)*\.{_TLD}(?![\w])"
)
_PHONE_WIDE = re.compile(
    r"(?<![\w+.])(?<!\d )(?:\+|00)[1-9](?:[ ()/.-]{0,2}\d){7,14}(?!\d)|(?<![\w.-])\(\d{3}\) ?\d{3}-\d{4}(?!\d)"
)
_PHONE_LABEL = re.compile(
    r"(?i)\b(?:tel|phone|mobile|telefon|fax)[a-z]{0,4}[\"']?\s{0,3}[:=.]?\s{0,3}"
    r"[\"']?([+(]?\d(?:[ ()/.-]{0,2}\d){6,14})"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30})(?![a-z0-9])")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_MRN = re.compile(
    r"(?i)\b(?:mrn|medical[ _]record(?:[ _](?:number|no))?|patient[ _-]?id|versichertennummer)"
    r"[\"']?\s{0,3}[:=#]\s{0,3}[\"']?([A-Z0-9-]{4,20})"
)
_MRN_NARROW = re.compile(
    r"(?i)\b(?:mrn|medical[ _]record|patient[ _-]?id)[\"']?\s{0,3}[:=#]\s{0,3}[\"']?([0-9]{5,20})\b"
)
_BIRTH = re.compile(
    r"(?i)\b(?:dob|date[ _]of[ _]birth|birth[ _-]?date|born|geboren|geburtsdatum)"
    r"[\"']?\s{0,3}[:=]?\s{0,3}[\"']?(\d{1,4}[./-]\d{1,2}[./-]\d{1,4})"
)
_WORD = r"[A-ZÀ-Þ](?:[a-zß-ÿ]|['\u2019-][A-ZÀ-Þ]?){1,30}"
_PERSON = rf"{_WORD}(?: [A-ZÀ-Þ]\.)?(?: {_WORD}){{1,2}}"
_NAME_LABEL = re.compile(
    rf"(?:[Nn]ame|NAME|[Pp]atient)[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?({_PERSON}|[A-ZÀ-Þ][a-zß-ÿ]{{2,30}}\b)"
)
_NAME_TITLE = re.compile(rf"\b(?:Mr|Mrs|Ms|Dr|Prof|Herr|Frau|Mme|Sr|Sra)\.? ({_PERSON}|[A-ZÀ-Þ][a-zß-ÿ]{{2,30}})")
_NAME_LINE = re.compile(rf"(?m)^({_PERSON})$")
_FIELD = re.compile(
    r"(?i)(?:^|[^a-z])(e-?mail|phone|iban|ssn|dob|birth(?:day|date)?|surname|mrn"
    r"|(?:first|last|full|family|patient)[_ -]?name|patient(?:[_ -]?id)?)(?:$|[^a-z])"
)
# Length of an IBAN by country (ISO 13616 registry), the countries of the SEPA area and some beyond.
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24, "DE": 22,
    "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31,
    "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "TR": 26, "UA": 29, "VA": 22,
}  # fmt: skip


def mask(kind: str, text: str) -> str:
    """Return enough of a find to recognise it, and not enough to be it: a report travels further than the data."""
    text = text.strip()
    if kind == "e-mail":
        user, _at, domain = text.partition("@")
        return f"{user[:1]}…@{domain[:1]}….{domain.rpartition('.')[2]}"
    if kind == "IBAN":
        return f"{text[:2]}…{text[-2:]}"
    if kind in ("phone number", "social security number"):
        return f"…{text[-2:]}"
    if kind == "name":
        return " ".join(f"{word[:1]}…" for word in text.split())
    return f"{len(text)} characters"


def iban_holds(text: str) -> bool:
    """Check length by country and the checksum of ISO 7064 mod 97-10."""
    compact = text.replace(" ", "")
    length = _IBAN_LENGTH.get(compact[:2])
    if length is None or len(compact) < length:
        return False
    compact = compact[:length]
    digits = "".join(str(int(char, 36)) for char in compact[4:] + compact[:4])
    return int(digits) % 97 == 1


# A word that has to be in the text for a pattern to find anything: looking for it is far cheaper than the pattern.
_NEEDS = {
    _PHONE_LABEL: ("tel", "phone", "mobile", "fax"),
    _MRN_NARROW: ("mrn", "medical", "patient"),
    _BIRTH: ("dob", "birth", "born", "geb"),
    _NAME_LABEL: ("name", "patient"),
}


def find_in_text(text: str) -> Iterator[Find]:
    """Yield what the wide patterns find in text."""
    yield from _matches("e-mail", _EMAIL_WIDE, text)
    yield from _matches("phone number", _PHONE_WIDE, text)
    yield from _matches("social security number", _SSN, text)
    yield from _matches("name", _NAME_TITLE, text)
    yield from _matches("name", _NAME_LINE, text, SUSPECT)
    yield from _matches("medical record number", _MRN, text)
    yield from _labelled(text)


def find_in_numbers(text: str) -> Iterator[Find]:
    """Yield what the narrow patterns find in printable runs of an array of numbers."""
    yield from _matches("e-mail", _EMAIL_NARROW, text)
    yield from _matches("medical record number", _MRN_NARROW, text)
    yield from _labelled(text)


def find_in_name(text: str) -> Iterator[Find]:
    """Yield a suspicion when the name of an array or a field of it speaks of persons."""
    for match in _FIELD.finditer(text):
        yield Find("field name", SUSPECT, match.group(1), match.start())


def _labelled(text: str) -> Iterator[Find]:
    for match in _IBAN.finditer(text):
        if iban_holds(match.group(1)):
            yield Find("IBAN", CERTAIN, mask("IBAN", match.group(1)), match.start())
    yield from _matches("phone number", _PHONE_LABEL, text)
    yield from _matches("date of birth", _BIRTH, text)
    yield from _matches("name", _NAME_LABEL, text)


def _matches(kind: str, pattern: re.Pattern[str], text: str, sure: str = CERTAIN) -> Iterator[Find]:
    lowered = text.lower() if pattern in _NEEDS else ""
    if pattern in _NEEDS and not any(word in lowered for word in _NEEDS[pattern]):
        return
    for match in pattern.finditer(text):
        found = match.group(match.lastindex or 0)
        yield Find(kind, sure, mask(kind, found), match.start())
