"""How labels are named: plurals, spellings, synonyms, lists, compounds, and words without meaning of their own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from labelmerge.names import prompt_name

_SYNONYMS = re.compile(r"[,;]")
_CHOICE = re.compile(r"\s*/\s*|\s*[|+&]\s*|\s+(?:and|or|und|oder)\s+|\s*,\s*", re.IGNORECASE)
_JOINED = re.compile(r"_|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_COCO_SUFFIX = re.compile(r"(?<=.)-(?:stuff|merged|other-merged|other)$")
_BRACKETS = re.compile(r"[(\[{].*?[)\]}]")
# British → American, by rule and, where there is none, by word. Both sides of a comparison go through it.
_SPELLINGS = (
    (re.compile(r"(?<=[bdlmpv])our(?=s?$|ed|ing|s? )|(?<=[bdlmpv])our(?=ful|able|ite)"), "or"),
    (re.compile(r"(?<=[a-z]t)re(?=s?$|s? )"), "er"),
    (re.compile(r"(?<=[a-z]{3}[^aeiou])is(?=e[sd]?\b|ing\b|ation)"), "iz"),
    (re.compile(r"(?<=[al])yse"), "yze"),
    (re.compile(r"(?<=[a-z]{2}[ae])ll(?=ed\b|ing\b|er\b)"), "l"),
    (re.compile(r"logue\b"), "log"),
)
_WORDS = dict(
    pair.split("=")
    for pair in (
        "grey=gray aeroplane=airplane kerb=curb kerbs=curbs tyre=tire tyres=tires plough=plow mould=mold cheque=check "
        "storey=story programme=program pyjamas=pajamas moustache=mustache jewellery=jewelry sceptic=skeptic axe=ax "
        "doughnut=donut drier=dryer fibre=fiber colour=color defence=defense licence=license practise=practice "
        "draught=draft carpark=parkinglot lorry=truck lorries=trucks motorbike=motorcycle motorbikes=motorcycles "
        "bike=bicycle bikes=bicycles cyclist=bicyclist cyclists=bicyclists tv=television telly=television "
        "pram=stroller lift=elevator dustbin=trashcan rubbish=trash garbage=trash cooker=stove nappy=diaper "
        "tram=streetcar lamppost=streetlight spectacles=glasses"
    ).split()
)
# What people shorten in class lists; only whole words of a name.
_SHORT = dict(
    pair.split("=")
    for pair in (
        "ped=pedestrian peds=pedestrians veh=vehicle vehs=vehicles veg=vegetation bldg=building bldgs=buildings "
        "bg=background bgd=background backgnd=background backgrnd=background bckg=background bckgrd=background "
        "kb=keyboard xing=crossing moto=motorcycle mbike=motorcycle rd=road ppl=people obst=obstacle obj=object "
        "objs=objects unk=unknown"
    ).split()
)
_IRREGULAR = dict(
    pair.split("=")
    for pair in (
        "people=person persons=person men=man women=woman children=child feet=foot teeth=tooth geese=goose mice=mouse "
        "shelves=shelf knives=knife leaves=leaf wolves=wolf loaves=loaf scarves=scarf calves=calf halves=half "
        "buses=bus lenses=lens gases=gas tomatoes=tomato potatoes=potato mangoes=mango heroes=hero torpedoes=torpedo"
    ).split()
)
_PLURAL = re.compile(rf"(?:{'|'.join(sorted(_IRREGULAR, key=len, reverse=True))})$")
_NO_PLURAL = ("ss", "us", "is", "news", "lens", "gas", "glasses", "scissors", "stairs", "clothes", "species", "series")
_ARTICLES = frozenset({"a", "an", "the", "any", "all", "some", "generic", "general", "various", "assorted", "class"})
REST = frozenset(
    {"other", "others", "misc", "miscellaneous", "fallback", "remaining", "rest", "etc", "unspecified"}
    | {"sonstige", "sonstiges", "andere", "anderes", "unidentified", "unknown", "undefined"}
)
"""Words of a label that stands for what a dataset does not name more closely; with nothing else, for all of it."""
NO_LABEL = frozenset(
    {"void", "unlabeled", "unlabelled", "unknown", "ignore", "ignored", "nothing", "none", "unannotated", "undefined"}
    | {"dont care", "dontcare", "no label", "nolabel", "not labeled", "unclassified", "unassigned", "null", "empty"}
)
"""Names of a label whose pixels mostly have none: whoever drew them did not say what is there."""
ALL_OTHERS = NO_LABEL | frozenset(
    {"background", "everything", "anything", "clutter", "stuff", "thing", "things", "object", "objects", "outlier"}
    | {"static", "dynamic", "static object", "dynamic object", "hintergrund"}
)
"""Names of a label for all that is none of a dataset's other labels."""
_GROUPS = frozenset({"group", "groups", "bunch", "crowd", "pair", "row", "pile", "stack", "herd", "flock", "set"})
_KINDS = frozenset({"kind", "kinds", "type", "types", "sort", "piece", "pieces", "lot"})
_PARTS = frozenset({"part", "parts", "side", "back", "front", "top", "bottom", "edge", "end", "inside", "corner"})
_OF_PLANTS = frozenset("trunk foliage crown canopy leaf leaves stem branch branches root roots".split())
_MARKS = frozenset({"marking", "markings", "line", "lines", "stripe", "stripes"})
_AFTER = frozenset(
    "red green yellow white black blue gray grey brown big small large little tiny tall short low high left right near "
    "far upper lower inner outer open opened closed parked moving stopped static dynamic standing sitting walking "
    "lying broken damaged intact full dry wet dead ripe unripe young old adult male female horizontal vertical "
    "occluded visible smooth rough normal area region surface instance".split()
)
"""Words that stand behind what they describe, as in a form: ``traffic_light_red``, ``sidewalk_area``."""
_STATE = re.compile(r"^(?!\w*(?:bed|(?<!i)shed|weed|seed|feed|reed|sled|table|cable)$)\w{3,}(?:ed|able|ible|less)$")
_PLURAL_IN_BRACKETS = re.compile(r"\((?:e?s)\)")
_INITIALS = re.compile(r"\b[A-Z]{2,}s\b")  # TVs
_PREPOSITIONS = re.compile(r" (?:with|without|in|on|at|for|from|by|near|under|above|behind|beside|used|that|which) ")
_ENDING = re.compile(r"(?<=[a-z]{3})(?:ed|en|e)$")
_NOT = re.compile(r"(?:non|not|no|un)[ -]", re.IGNORECASE)
_MISSPELLED = 7  # shorter words have too many neighbours


@lru_cache(maxsize=1 << 16)
def word_key(phrase: str) -> str:
    """A key that all spellings of one word share, whatever their case, hyphens, blanks, British or American.

    >>> word_key("Street-Light") == word_key("streetlight"), word_key("grey kerb") == word_key("gray curb")
    (True, True)
    """
    words = _plain(phrase)
    for pattern, american in _SPELLINGS:
        words = pattern.sub(american, words)
    key = "".join(_WORDS.get(word, word) for word in words.split())
    return _WORDS.get(key, key)  # lamp post, car park


def stem_key(phrase: str) -> str:
    """The `word_key` of a compound without the endings of its modifiers: *tiled wall*, *tile wall*; "" for one word.

    >>> stem_key("wooden floor") == stem_key("wood floor"), stem_key("wall")
    (True, '')
    """
    *modifiers, last = singular(_plain(phrase)).split()
    return word_key(" ".join([*(_ENDING.sub("", word) for word in modifiers), last])) if modifiers else ""


def describes(title: str, phrases: Iterable[str]) -> bool:
    """Whether a word only says of what sort one of these phrases' last words is: the page *Tile* of a tiled wall.

    >>> describes("Tile", ["tiled wall"]), describes("Face", ["human face"])
    (True, False)
    """
    word = _ENDING.sub("", singular(_plain(title)))
    return any(word in {_ENDING.sub("", each) for each in _plain(phrase).split()[:-1]} for phrase in phrases)


def singular_key(phrase: str) -> str:
    """The `word_key` of a phrase whose last word is put in the singular."""
    return word_key(singular(_plain(phrase)))


@lru_cache(maxsize=1 << 16)
def _plain(phrase: str) -> str:
    """A phrase in lower case, of words that are separated by one blank."""
    text = (
        prompt_name(_INITIALS.sub(lambda word: word[0].lower(), _PLURAL_IN_BRACKETS.sub("s", phrase)).replace("/", " "))
        .replace("'s ", " ")
        .replace("'", "")
        .replace("’", "")
    )
    words = text.split()
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(_SHORT.get(word, word) for word in words)


def is_shortened(name: str) -> bool:
    """Whether a name has an abbreviation that is read as a whole word: ``ped``, ``other_veh``."""
    return not _SHORT.keys().isdisjoint(prompt_name(name).split())


def plain(phrase: str) -> str:
    """A name in lower case, without articles; of synonyms the first.

    >>> plain("The Traffic_Light"), plain("Traffic Sign (Back)")
    ('traffic light', 'traffic sign back')
    """
    return _plain(phrase)


def singular(phrase: str) -> str:
    """A guess at the singular of a phrase's last word.

    >>> [singular(word) for word in ("street lights", "buses", "bushes", "grass", "berries", "shelves", "people")]
    ['street light', 'bus', 'bush', 'grass', 'berry', 'shelf', 'person']
    """
    head, space, last = phrase.rpartition(" ")
    irregular = _PLURAL.search(last)
    if irregular and (irregular.start() == 0 or len(irregular[0]) > 4):  # bookshelves, policemen; but no *specimen*
        last = last[: irregular.start()] + _IRREGULAR[irregular[0]]
    elif len(last) > 3 and last.endswith("s") and not last.endswith(_NO_PLURAL):
        if last.endswith("ies") and len(last) > 4:
            last = last[:-3] + "y"
        elif last.endswith(("sses", "xes", "ches", "shes", "zzes")):
            last = last[:-2]
        else:
            last = last[:-1]
    return head + space + last


def synonyms(name: str) -> list[str]:
    """The words that a name gives for one thing, in plain form, at least one: ``sofa, couch`` has two.

    >>> synonyms("sofa, couch, lounge"), synonyms("Cabinet/shelf")
    (['sofa', 'couch', 'lounge'], ['cabinet shelf'])
    """
    parts = [part for part in _SYNONYMS.split(name.rpartition("--")[2]) if part.strip()]
    return list(dict.fromkeys(_plain(part) for part in parts or [name]))


def choices(name: str) -> list[str]:
    """The things that a name lists, as it spells them; the name itself if it is no list.

    A word that the last one has for all is given to each: ``left / right arrow``, ``cutting/chopping board``.

    >>> choices("Truck or Bus"), choices("road")
    (['Truck', 'Bus'], ['road'])
    """
    parts = [part.strip() for part in _CHOICE.split(name.rpartition("--")[2]) if part.strip(" .-")]
    return parts or [name]


def shared_head(parts: list[str], part: str) -> str:
    """A thing of a list with the last word of the list's last thing: *cutting* of *cutting/chopping board*."""
    return f"{part} {parts[-1].split()[-1]}"


def joined(name: str) -> list[str]:
    """The words that a name runs together, by underscores or capitals, as whole words: ``Truck_Bus``.

    >>> joined("SUVPickupTruck"), joined("TrafficCone")
    (['SUV', 'Pickup', 'Truck'], ['Traffic', 'Cone'])
    """
    return [part for part in _JOINED.split(name.strip()) if part]


def without_rest(phrase: str) -> str:
    """A plain phrase without words for "the rest": *other vehicle* is a vehicle; "" for *other*.

    >>> without_rest("other vehicle"), without_rest("otherfurniture"), without_rest("vehicle fallback")
    ('vehicle', 'furniture', 'vehicle')
    """
    words = [word for word in phrase.split() if word not in REST]
    if words and words[0].startswith("other") and len(words[0]) > len("other") + 2:
        words[0] = words[0][len("other") :]
    return " ".join(words)


def is_rest(name: str) -> bool:
    """Whether a name says that its label is the rest, of everything or of one kind; not in a list of several.

    >>> is_rest("background"), is_rest("otherprop"), is_rest("Other Vehicle"), is_rest("sky / fallback background")
    (True, True, True, False)
    """
    phrase = plain(name)
    return not set(name) & set("/,;") and (phrase in ALL_OTHERS or without_rest(phrase) != phrase)


def without_brackets(name: str) -> str:
    """A name without its brackets, which hold a hint at the meaning, or a part or kind of it."""
    return " ".join(_BRACKETS.sub(" ", name).split())


def heads(name: str, first: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """The phrases that a compound may be a kind or a part of, the likeliest first, as ("kind" or "part", phrase).

    Args:
        name: as a dataset spells it.
        first: what this dataset puts before its kinds, as COCO does in *wall-brick* and *wall-stone* (`before_hyphen`).

    >>> list(heads("police car")), list(heads("back of a bus"))[:1]
    ([('kind', 'car')], [('part', 'bus')])
    """
    phrase = _plain(name)
    if _NOT.match(phrase):
        return
    before, of, after = phrase.partition(" of ")
    after = _plain(after) if of else ""
    if of:
        last = before.split()[-1]
        if last in _GROUPS or last in _KINDS:
            yield "kind", after
        elif last in _PARTS:
            yield "part", after
        else:
            yield from (("kind", end) for end in ends(before))
            yield "part", after
        return
    short = _PREPOSITIONS.split(phrase)[0]
    if short != phrase:
        yield from (("kind", end) for end in ends(short))
        return
    bare = without_state(phrase)
    if bare != phrase:
        yield "kind", bare
        yield from (("kind", end) for end in ends(bare)[1:])
        return
    rest, _, last = phrase.rpartition(" ")
    if rest and last in _OF_PLANTS | _MARKS:
        yield "part", rest
    if rest and last in _GROUPS:
        yield "kind", rest
        return
    if rest and last in _PARTS:
        yield "part", rest
        return
    kind = before_hyphen(name)
    if kind in first:
        yield "kind", kind
    if (base := without_brackets(name)) and base != name.strip() and _plain(base) != phrase:
        yield "kind", _plain(base)
    yield from (("kind", end) for end in ends(phrase)[1:])
    if kind and kind not in first:
        yield "kind", kind


def readings(name: str) -> list[str]:
    """How a whole name may be read: as it is, turned round, without words for "the rest".

    >>> readings("other_vehicle"), readings("sign_stop"), readings("road")
    (['other vehicle', 'vehicle other', 'vehicle'], ['sign stop', 'stop sign'], ['road'])
    """
    word = synonyms(name)[0]
    rest = without_rest(word)
    return [word, *(each for each in (turned(name), "" if rest in {word, *ALL_OTHERS} else rest) if each)]


def ends(phrase: str) -> list[str]:
    """A phrase, and what is left of it without its first words, one after the other."""
    words = phrase.split()
    return [" ".join(words[start:]) for start in range(len(words))]


def turned(name: str) -> str | None:
    """A name that starts with its kind, in the usual order: ``wall-brick`` → *brick wall*, ``sign_stop``."""
    if kind := before_hyphen(name):
        return f"{_plain(name)[len(kind) :].strip()} {kind}"
    words = _plain(name).split()
    return f"{words[-1]} {' '.join(words[:-1])}" if len(words) > 1 and "_" in name else None


def without_state(phrase: str) -> str:
    """A plain phrase without the colours, sizes and states that follow it.

    >>> without_state("traffic light red"), without_state("red"), without_state("building unfinished left")
    ('traffic light', 'red', 'building')
    """
    words = phrase.split()
    while len(words) > 1 and (words[-1] in _AFTER or _STATE.search(words[-1])):
        words = words[:-1]
    return " ".join(words)


def before_hyphen(name: str) -> str:
    """The plain words before a name's only hyphen; "" where it has none."""
    first, hyphen, rest = _COCO_SUFFIX.sub("", name.strip()).partition(" - " if " - " in name else "-")
    return _plain(first) if hyphen and "-" not in rest and rest.strip() and first.strip() else ""


def near_misses(key: str) -> Iterator[str]:
    """A long key, and what is left of it without each of its letters; nothing for a short one."""
    if len(key) >= _MISSPELLED:
        yield key
        yield from (key[:place] + key[place + 1 :] for place in range(len(key)))
