r"""The words that the COCO caption evaluation counts, without Java: Penn Treebank tokens, lower-cased, no punctuation.

The definition is a program: Stanford CoreNLP 3.4.1's PTBTokenizer with `-preserveLines -lowerCase`, and the list of
punctuation that pycocoevalcap takes out of its lines. `ptb_words` gives the words of that pair. Its rules were found by
asking it, and the tests ask it again wherever Java is installed. What is worth knowing of the definition:

- "dog's" is two words, "can't" is `ca n't`, "gonna" is `gon na`; "well-fed", "and/or", "o'clock" and "1/2" are one.
- Brackets stay, as `-lrb-` and `-rrb-`, since the list has them in capitals. "!" goes, but "!!" and "?!" stay.
- Abbreviations keep their full stop, and capitals decide on some: "vitamin A. the" has `a.`, "vitamin A. The" has `a`.
- Emoji and whatever else the program cannot read are left out, and part words as a space does.

Where this differs, all rare: telephone numbers in unusual groups, e-mail and web addresses next to unusual signs, tags
with unusual attributes, and letters that came into Unicode after the program. And where the program looks beyond a
caption: one that ends in "S." has `s` if the next caption of the file begins with "A ", else `s.`; here it is `s.`. A
line separator inside a caption (\r, \x0b, \x0c, U+2028, U+2029) is white space here; there it begins a new line, and
every later caption gets its neighbour's words.
"""

import re

_BRACKETS = ["-LRB-", "-RRB-", "-LCB-", "-RCB-"]
REMOVED = frozenset(["''", "'", "``", "`", *_BRACKETS, ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""What pycocoevalcap takes out after tokenisation; the brackets never occur there, for by then they are small."""

# How tokens become words.
_QUOTES = {**dict.fromkeys("`‘‛‹\x91", "`"), **dict.fromkeys("’›\x92", "'")}
_QUOTES |= {**dict.fromkeys("“«\x93", "``"), **dict.fromkeys("”»\x94", "''")}
_CONTRACTED = ("s", "d", "m", "ll", "re", "ve")
_WRITTEN = {
    **dict(zip("()[]{}", ["-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"], strict=True)),
    **{one + two: _QUOTES[one] + _QUOTES[two] for one in _QUOTES for two in _QUOTES} | _QUOTES,
    **{f"’{end}": f"'{end}" for end in _CONTRACTED} | {"n’t": "n't"},
    **{"&lt;": "<", "&gt;": ">", "&amp;": "&", "£": "#", **dict.fromkeys("€₠¤\x80", "$"), "¢": "cents"},
    **{"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
}
"""Tokens that are not written as they stand."""
_SILENT = {*REMOVED, "---", "----", "....", *' "\x84–—―…\x85\x96\x97'}
_SILENT |= {"&quot;", "&apos;", "&nbsp;", "&mdash;", "&ndash;"}
_WORDS_OF: dict[str, tuple[str, ...]] = {
    **{token: () if word in REMOVED else (word,) for token, word in _WRITTEN.items()},
    **dict.fromkeys(_SILENT, ()),
}
_IN_TWO = frozenset({"cannot", "gonna", "gotta", "wanna", "gimme", "lemme"})
"""Words that are two, the first of three letters."""
_INSIDE = {"(": "-lrb-", ")": "-rrb-", " ": "\xa0", "&amp;": "&"}
"""Signs within longer tokens, as in ":(" and "555 123 4567"."""

# A name in small letters stands for itself in any case; one with capitals only as it is written.
_ABBREVIATIONS = """al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est
    etc ext feb fla fri ga inc ind intl jan jr jul jun kan ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn
    plc pte pty rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
    Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA TEX WASH"""
_TITLES = """adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col cpl dept det dr drs elec ens ft gen gov hon
    insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof pvt rep reps rev sen sens
    sfc sgt spc st ste supt vs wm"""
_BEFORE_NUMBERS = "art ca fig figs no nos op p pp prop"
_SENTENCES_BEGIN = """a about according additionally after an as at but earlier he her here however if in it last many
    more now once one other our she since so some such that the their then there these they this we what when while yet
    you"""
_FILES = """jpg jpeg png gif txt doc pdf mp3 html htm php exe zip gz tar c cpp h py java xml ppt bmp wav mov ps pl class
    jar cgi bat docx dll sql"""

# What a letter and a sign are beyond ASCII: roughly what the program's Unicode took for them.
_LETTERS = (
    r"A-Za-z\xaa\xb5\xba\xc0-\xd6\xd8-\xf6\xf8-\u037d\u0386\u0388-\u0588\u0591-\u05bd\u05d0-\u05f2\u0610-\u061a"
    r"\u0620-\u0669\u066e-\u06d3\u06d5-\u06ff\u0710-\u0963\u0966-\u0e3e\u0e40-\u0e4e\u0e50-\u1fbc\u1fbe-\u1fff"
    r"\u2c00-\u2dff\u3005-\u3007\u3021-\u302f\u3031-\u30fa\u30fc-\u318f\u31a0-\u31ff\u3400-\ud7a3\uf900-\ufdff"
    r"\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc"
)
_SIGN = (
    r"([!-/:-@\[-`{-~\x80\x84\x85\x96\x97\xa1-\xa9\xac\xae-\xb4\xb6-\xb9\xbc-\xbf\xd7\xf7\u037e\u0387\u0589\u060c\u061b"
    r"\u061f\u066a\u06d4\u0964\u0965\u0e3f\u2013-\u2017\u201a\u201e-\u2023\u2026\u2030-\u2038\u203b\u203e-\u2044\u2070"
    r"\u2074-\u208e\u20a0\u20a4\u20ac\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f"
    r"\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffe6])"
)
_NUMBER = r"([-+]?(?:\d*(?:[.:,]\d+)+|\d+))"


def _any_of(names: str) -> str:
    small = [name for name in names.split() if name.islower()]
    others = [name for name in names.split() if not name.islower()]
    return "|".join([f"(?i:{'|'.join(small)})", *others])


def _at_words(letters: str) -> list[str]:
    """Rules for tokens that begin with a letter or a digit."""
    letter, sign = f"[{letters}]", f"[0-9{letters}]"
    unit = rf"(?:[dloDLO]['’`]{sign}{{2,}}|{sign}+)"
    part = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
    begins = rf"(?![a-z])(?:{_any_of(_SENTENCES_BEGIN)})(?:\s|$)|M[rRsS]\.|</?[A-Za-z!?][^>]*>"
    return [
        rf"({sign}+)['’](?i:{'|'.join(_CONTRACTED)})",
        r"([A-Za-z]*[A-MO-Za-mo-z])[nN]['’`][tT]",
        r"([nN]['’`][tT])",
        r"((?i:can(?=not)|(?:gon|wan)(?=na)|got(?=ta)|(?:gim|lem)(?=me)))(?i:not|na|ta|me)",
        rf"({sign}+)",
        rf"([dlnoA-HJ-XZ]['’`]{letter}{{2,}})",  # d'art
        rf"({letter}[A-Za-z]*[aeiouyAEIOUY]['’`][aeiouA-Z][A-Za-z]*)",  # Hawai'i
        r"((?i:c['’]mon|ma['’]am|o['’]clock|e['’]er|s['’]mores|nat['’]l|ev['’]ry|li['’]l|o['’]o|cap['’]n))",
        r"((?i:ol|dunkin|[dlj])['’])",
        rf"([yY]['’]){letter}",  # y'all
        rf"({unit}(?:[-_‐‑]{unit})*)",
        r"((?i:anti|pro)-)",
        rf"({letter}{sign}*(?:[.!?]{letter}{sign}*)+)",  # lrl.cli
        rf"({sign}+(?:\.{sign}+)*\.(?:{_any_of(_FILES)}))(?!{sign})",
        rf"((?:{_any_of(_ABBREVIATIONS)})\.)(?s:.{{0,2}})",
        r"([A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9]+))+)",  # 1,000-foot, non-U.S.
        rf"((?:{_any_of(_TITLES)})\.)",
        rf"((?:{_any_of(_BEFORE_NUMBERS)})\.)(?=[ \xa0]?\d)",
        rf"([A-Za-z]\.)(?!\s+(?:{begins}))",
        r"((?:[A-Za-z](?:\.[A-Za-z])+|(?i:ph\.d))\.)",  # U.S.
        rf"({sign}+(?:-{sign}+)*\.)[,;:、]",
        _NUMBER,
        r"((?:\d{1,4}[- \xa0])?\d{1,4}(?:\\?/|⁄)\d{1,4})",  # 1 1/2
        r"(\d{2,4}[- \xa0]\d{3,4}[- \xa0]\d{3,5})",  # 555 123 4567
        rf"({part}(?:\\?/{part}){{1,2}})",  # and/or
        r"([A-Z]+(?:(?:[+&]|&(?i:amp);)[A-Z]+)+|[A-Z]+\$|[Cc]\+\+|[CcFf]#)",  # AT&T, US$
        *_addresses(),
    ]


def _addresses() -> list[str]:
    final = r"[^\s\"<>|.!?(){},;:'-]"
    path = rf"/[^\s\"<>|()]+{final}"
    name = r"[^\s\"<>|().]+"
    return [
        rf"(https?://[^\s\"<>|()]+{final}|www\.(?:[^\s\"<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}(?:{path})?)",
        rf"((?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu){path})",
        rf"([A-Za-z0-9][^\s\"<>|()@]*@{name}(?:\.{name})*)",
    ]


def _at_signs(letters: str) -> list[str]:
    """Rules for tokens that begin with any other sign."""
    return [
        rf"('(?i:{'|'.join(_CONTRACTED)}))(?![A-Za-z])",
        rf"(’(?i:{'|'.join(_CONTRACTED)}|n['’]?))",
        r"(['’](?i:cause|em|till?|[2-9]0s)|['’]\d\d(?=\s|$)|'[nN](?:['’]|(?=\s|$)))",
        r"('[tT])(?i:is|was)",
        rf"([{''.join(_QUOTES)}]{{1,2}}|'')",
        _NUMBER,
        r"(<[!?][A-Za-z-][^>]*>|</[A-Za-z][\w.:-]*\s*>)",
        r"(<[A-Za-z][^\s\"'<>()!,=/]*(?:\s+[A-Za-z][A-Za-z0-9_.:-]*(?:\s*=\s*(?:'[^']*'|\"[^\"]*\"))?)*\s*/?>)",
        r"([<>]?[:;=][-o*']?[()dDpPO\\{@|\[\]])(?![A-Za-z0-9])",  # :-)
        r"(:3(?!\d)|\([-^=~<>'][_.]?[-^=~<>']\)|[-^=~<>']_[-^=~<>']|[\^=~<>]\.[\^=~<>])",  # ^_^
        r"(\(\d{3}\)[ \xa0]?(?:\d{7}|\d{3,4}[- \xa0]?\d{4,5}))",
        rf"(@[A-Za-z_][A-Za-z0-9_]*|\#[{letters}]+)",
        r"(&(?i:lt|gt|amp|quot|apos|nbsp|mdash|ndash);|&\#\d+;)",
        r"([!?]+|\.{3,4}|-{5,}|-{2,4}|([#@<>_])\2*|(?:\\?\*)+|-(?i:[lr][rsc]b)-)",
        _SIGN,
    ]


def _rules(letters: str) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    at_words, at_signs = ([re.compile(rule) for rule in make(letters)] for make in (_at_words, _at_signs))
    return at_words, at_signs


_BEGINS_WORD = re.compile(f"[0-9{_LETTERS}]")
_ASCII, _ANY = _rules("A-Za-z"), _rules(_LETTERS)

# Short cuts of `ptb_words`: words among spaces and commas, perhaps with a last full stop; and tokens of which the next
# signs already say that they end there.
_PLAIN = re.compile(rf"[{_LETTERS}, ]+(?:(?<= )|(\. *)?$)")
_ALONE = re.compile(
    rf"([{_LETTERS}][0-9{_LETTERS}]*(?:-[0-9{_LETTERS}]+)*(?=[ \")]|[.,;:?!](?:[ \n\"]|$)|'s[ .,]|$)|'s(?=[ .,]|$)"
    r"|[A-Za-z]*[A-MO-Za-mo-z](?=n't[ .,])|n't(?=[ .,])|\d+(?= [A-Za-z]|\.? *$)|[.,;:?!](?=[ \n]|$)|[ \")\]$%£€]) *"
)
_INITIALS = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
_MAY_KEEP_A_STOP = frozenset(f"{_ABBREVIATIONS} {_TITLES} {_BEFORE_NUMBERS} {_INITIALS}".lower().split())
_NEED_THE_RULES = _MAY_KEEP_A_STOP | _IN_TWO


def ptb_words(text: str) -> list[str]:
    """Words of one caption, as the Java pipeline of the COCO evaluation would count them.

    Args:
        text: A raw caption, in its own case: "A man's dog." gives a, man, 's, dog.
    """
    text = text.replace("\n", " ").replace("\xad", "")
    words: list[str] = []
    position, end = 0, len(text)
    while position < end:
        if plain := _PLAIN.match(text, position):
            split = plain[0].lower().replace(",", " ").split()
            if plain[1] and not _drop_stop(split):
                return words + ptb_words_by_rules(text[position:])
            words += split if _IN_TWO.isdisjoint(split) else _divided(split)
            position = plain.end()
        elif (alone := _ALONE.match(text, position)) and alone[1].lower() not in _NEED_THE_RULES:
            words += _words_of(alone[1])
            position = alone.end()
        else:
            token, position = _next_token(text, position)
            words += _words_of(token)
    return words


def ptb_words_by_rules(text: str) -> list[str]:
    """What `ptb_words` gives, by the rules alone: the definition, without short cuts and slow.

    Args:
        text: A raw caption.
    """
    text = text.replace("\n", " ").replace("\xad", "")
    words: list[str] = []
    position = 0
    while position < len(text):
        token, position = _next_token(text, position)
        words += _words_of(token)
    return words


def _next_token(text: str, position: int) -> tuple[str, int]:
    """The token at `position`, "" where there is none, and where the next one may begin.

    The rule that reads farthest wins, the first of those that read equally far. Group 1 is the token; what a rule reads
    beyond it counts for the length alone.
    """
    at_words, at_signs = _ASCII if text.isascii() else _ANY
    farthest, end = position, position + 1
    for rule in at_words if _BEGINS_WORD.match(text, position) else at_signs:
        match = rule.match(text, position)
        if match is not None and match.end() > farthest:
            farthest, end = match.end(), match.end(1)
    return (text[position:end], end) if farthest > position else ("", end)


def _words_of(token: str) -> tuple[str, ...]:
    """None for punctuation, else one."""
    small = token.lower()
    known = _WORDS_OF.get(small)
    if known is not None:
        return known
    for sign, written in _INSIDE.items():
        small = small.replace(sign, written)
    return (small,) if small else ()


def _divided(words: list[str]) -> list[str]:
    return [part for word in words for part in ((word[:3], word[3:]) if word in _IN_TWO else (word,))]


def _drop_stop(split: list[str]) -> bool:
    """Take the full stop from the last word; False where it may belong to it."""
    last = split[-1].rstrip(".")
    if last:
        split[-1] = last
    else:
        split.pop()
    return last not in _MAY_KEEP_A_STOP
