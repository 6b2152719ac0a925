import gzip
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from lrl_core.metrics.ptb import REMOVED, ptb_words, ptb_words_by_rules

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
# What pycocoevalcap's PTBTokenizer said of each caption, asked alone. `~~` is a no-break space within a word.
GOLDEN = r"""
A man's dog isn't on the men's bed.
    a man 's dog is n't on the men 's bed
He can't, won't and shouldn't've said it's theirs.
    he ca n't wo n't and should n't 've said it 's theirs
I'M SURE THEY'LL COME AND WE'D SEE
    i 'm sure they 'll come and we 'd see
dog’s can’t I’m they’ve
    dog 's ca n't i 'm they 've
gonna gotta wanna gimme lemme cannot
    gon na got ta wan na gim me lem me can not
cannot's gimme's dunno whatcha can-not
    cannot 's gimme 's dunno whatcha can-not
'tis the season, 'twas said, 'twasn't it
    't is the season 't was said 't was n't it
rock 'n' roll, rock'n'roll, rock 'n roll
    rock 'n' roll rock 'n' roll rock 'n roll
get 'em 'cause it's late 'til nine, 'bout time
    get 'em 'cause it 's late 'til nine bout time
o'clock O'Brien's d'art l'amour ma'am c'mon s'mores
    o'clock o'brien 's d'art l'amour ma'am c'mon s'mores
jack-o'-lantern and hors-d'oeuvre at Hawai'i
    jack-o lantern and hors-d'oeuvre at hawai'i
y'all y'know ol' dunkin' goin' cap'n li'l
    y' all y' know ol' dunkin' goin cap'n li'l
the '90s, the 90's, the 1990's, '53 and '53, too
    the '90s the 90 's the 1990 's '53 and 53 too
does'nt dosn't dont't isn'ta can`t
    does nt dos n't dont t is n'ta ca n`t
dogs' 'single' "double" ``old'' “curly” ‘curly’ «angle» ““twice””
    dogs single double old curly curly angle ```` twice ''''
A two-year-old in a T-shirt, half-eaten, co-op, x-ray
    a two-year-old in a t-shirt half-eaten co-op x-ray
non - stop word--word word -- word a---b a-----b -word word-
    non stop word word word word a b a ----- b word word
anti- war, pro- war, pre- war, U.S.-led, non-U.S.
    anti- war pro- war pre war u.s.-led non-u.s.
and/or his/her black/white/red/blue w/o w/ a / b and\/or
    and/or his/her black/white/red / blue w/o w / a / b and\/or
Mr. Smith and Mrs. Jones vs. Dr. Who at St. Mary's
    mr. smith and mrs. jones vs. dr. who at st. mary 's
the U.S. and U.S.A. at 5 p.m. or 12:30a.m. or 5p.m.
    the u.s. and u.s.a. at 5 p.m. or 12:30 a.m. or 5p m.
e.g. this, i.e. that, etc. in Washington, D.C.
    e.g. this i.e. that etc. in washington d.c.
a sign that says Main St.
    a sign that says main st.
a sign on 12th Ave. and Oak Blvd. near Smith Inc.
    a sign on 12th ave. and oak blvd. near smith inc.
an ill. mass. miss. la. and Ill. Mass. Miss. La.
    an ill mass miss la and ill. mass. miss. la.
no. 5 No. 5 no. a p. 7 figs. 3 no.
    no. 5 no. 5 no a p. 7 figs. 3 no
vitamin A. the vitamin A. The vitamin B. Dogs vitamin C.
    vitamin a. the vitamin a the vitamin b. dogs vitamin c.
J.R.R. Tolkien, George W. Bush, Ph.D. and Ph.D's
    j.r.r. tolkien george w. bush ph.d. and ph.d 's
oz. lb. in. cm. ft. sq. mt.
    oz lb in cm ft. sq. mt.
The man.The cat a.b.c notes.txt 000285.jpg Dog.A cat
    the man.the cat a.b.c notes.txt 000285.jpg dog.a cat
dog!cat dog?cat dog!!cat what?! why?? no!!! yes! ok?
    dog!cat dog?cat dog !! cat what ?! why ?? no !!! yes ok
wait... what.. ok.... hmm… . . . end . .
    wait what ok hmm end
dog., dog.; dog.: dog.) a-b., 5.,
    dog. dog. dog. dog -rrb- a-b. 5.
1,000 people, 3.5 miles, 12:30pm, 5pm, .5, 1.2.3, 1,a
    1,000 people 3.5 miles 12:30 pm 5pm .5 1.2.3 1 a
10% $5.00 US$5 C$ £5 €5 5¢ #1 #5a ¥5
    10 % $ 5.00 us$ 5 c$ # 5 $ 5 5 cents # 1 # 5a ¥ 5
1/2 1 1/2 1-1/2 2 3/4 cups 24/7 9/11 10/20/2003 2003-01-02
    1/2 1~~1/2 1-1/2 2~~3/4 cups 24/7 9/11 10/20/2003 2003-01-02
½ cup, 1½ cups, ¼-inch, m², 70°F
    1/2 cup 1 1/2 cups 1/4 inch m ² 70 ° f
1+1=2 3-2 -5 +5 5x7 5-foot 5'10" 6' 1st 22nd
    1 +1 = 2 3-2 -5 +5 5x7 5-foot 5 10 6 1st 22nd
555 123 4567 or 555-1234 or (555) 555-5555
    555~~123~~4567 or 555-1234 or -lrb-555-rrb-~~555-5555
(brackets) [square] {curly} -LRB- dog(s) (s)he
    -lrb- brackets -rrb- -lsb- square -rsb- -lcb- curly -rcb- -lrb- dog -lrb- s -rrb- -lrb- s -rrb- he
AT&T R&B S&P500 M&M's salt&pepper a & b AT&amp;T
    at&t r&b s&p 500 m&m 's salt & pepper a & b at&t
&lt;b&gt; &quot;hi&quot; &amp; &nbsp; &#39;
    < b > hi & &#39;
A+B C++ C# A+ a+b a=b a*b **bold** *star* a~b a^b a|b
    a+b c++ c# a + a + b a = b a * b ** bold ** * star * a ~ b a ^ b a | b
<unk> <eos> <b>bold</b> <br/> <a href="x y">z</a> < dog > a<b
    <unk> <eos> <b> bold </b> <br/> <a~~href="x~~y"> z </a> < dog > a < b
@dog_cat @5 #dog #dog_cat dog@cat.com dog@
    @dog_cat @ 5 #dog #dog _ cat dog@cat.com dog @
www.foo.com foo.com/bar, http://foo.com/bar?x=1. foo.com's
    www.foo.com foo.com/bar http://foo.com/bar?x=1 foo.com 's
dog_cat _dog_ __ ___ 1_a a_b-c
    dog_cat _ dog _ __ ___ 1_a a_b-c
:) :-( ;) =D :P :/ <3 ^_^ -_- :)) :)dog
    :-rrb- :--lrb- ;-rrb- =d :p / < 3 ^_^ -_- :-rrb- -rrb- -rrb- dog
café naïve Ünter-Straße É.É. jalapeños’ 北京 日本語
    café naïve ünter-straße é.é jalapeños 北京 日本語
a pizza 🍕 and a🍕b ★ ® x™ • ·
    a pizza and a b ★ ® x ™ • ·
A — dash – another―one a—b
    a dash another one a b
a,b a,b,c-d a ,b ;c :d
    a b a,b,c-d a b c :d
.NET Node.js Yahoo! E! Jeopardy!
    net node.js yahoo e jeopardy
Yogi ''quoted'' `one' ```three
    yogi quoted one three
Bros. and Sons & Co. Ltd. Jr. Sr. Jan. Feb.
    bros. and sons & co. ltd. jr. sr. jan. feb.
7-Eleven F-16s A380 COVID-19 Wi-Fi CO2 No.1
    7-eleven f-16s a380 covid-19 wi-fi co2 no. 1
""".replace("~~", "\xa0")
GOLDEN = dict(zip(GOLDEN.strip().split("\n")[::2], map(str.strip, GOLDEN.strip().split("\n")[1::2]), strict=True))
GOLDEN |= {
    "zero\u200bwidth non\u00adsoft no break": "zero width nonsoft no break",
    "two  spaces\tand a tab, end .": "two spaces and a tab end",
    "": "",
    ".": "",
    " ": "",
}
NEUTRAL = "x"
"""Stands between two captions: what the program says of one may depend on the first words of the next."""


SEPARATORS = set("\r\x0b\x0c\u2028\u2029")


def by_java(captions):
    """The words of the program and list of punctuation that are the definition."""
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rows = {i: [{"caption": caption}, {"caption": NEUTRAL}] for i, caption in enumerate(captions)}
    with mock.patch.dict(os.environ, JAVA_TOOL_OPTIONS="-Dfile.encoding=UTF-8"):  # it reads what the locale says
        tokenised = PTBTokenizer().tokenize(rows)
    return [told[0].split(" ") if told[0] else [] for told in tokenised.values()]


def read(name, column, limit=None):
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"needs shared/data/{name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line)[column] for _, line in zip(range(limit or 10**9), lines, strict=False)]
    return [text for row in rows for text in ([row] if isinstance(row, str) else row)]


def coco(limit=None):
    return read("coco_captions_val2017/references.jsonl.gz", "captions", limit)


@pytest.mark.parametrize("caption", GOLDEN)
def test_golden_captions(caption):
    assert " ".join(ptb_words(caption)) == GOLDEN[caption]


def test_golden_captions_are_what_java_says():
    assert [" ".join(words) for words in by_java(GOLDEN)] == list(GOLDEN.values())


@pytest.mark.parametrize("text", GOLDEN)
def test_short_cuts_change_nothing(text):
    for start in range(len(text)):
        assert ptb_words(text[start:]) == ptb_words_by_rules(text[start:])
        assert ptb_words(text[:start]) == ptb_words_by_rules(text[:start])


def test_short_cuts_change_nothing_on_real_captions():
    texts = [*coco(300), *read("e2e_nlg/dev.jsonl.gz", "refs", 60), *read("multi30k_captions5/val.jsonl.gz", "de", 100)]
    assert [ptb_words(text) for text in texts] == [ptb_words_by_rules(text) for text in texts]


def test_line_separators_are_white_space():
    assert " ".join(ptb_words("a\nman\r\nwith\u2028a\u2029hat\x0band\x0ca cat")) == "a man with a hat and a cat"


def test_no_punctuation_comes_out():
    assert not REMOVED & {word for caption in GOLDEN for word in ptb_words(caption)}


@pytest.mark.parametrize(
    "text", ["<a b " * 2000, "a-" * 5000, "a." * 5000, "'" * 5000, "A&" * 5000, "1," * 5000, "x" * 9999]
)
def test_nonsense_of_any_length_is_read(text):
    # Soon, where a rule that reads back and forth would take hours.
    assert ptb_words(text) == ptb_words_by_rules(text)


def test_equals_java_on_coco_captions():
    captions = coco(800)
    assert [ptb_words(caption) for caption in captions] == by_java(captions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("coco_captions_val2017/references.jsonl.gz", "captions"),
        ("multi30k_captions5/train.jsonl.gz", "en"),
        ("multi30k_captions5/train.jsonl.gz", "de"),
        ("e2e_nlg/dev.jsonl.gz", "refs"),
        ("emoji_names/emoji.jsonl.gz", "name"),
        ("flags_captions/flags.jsonl.gz", "description"),
        ("sentiment_mr/train.jsonl.gz", "text"),
        ("subj/train.jsonl.gz", "text"),
        ("gsm8k/train.jsonl.gz", "question"),
    ],
)
def test_equals_java_on_every_text(name, column):
    # A separator of lines makes every later text get its neighbour's words from Java.
    texts = [text for text in read(name, column) if not SEPARATORS & set(text)]
    assert [ptb_words(text) for text in texts] == by_java(texts)
