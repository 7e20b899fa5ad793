# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The embedded default of the text jobs: 4,000 made-up headlines on the four topics of AG News.

No text of AG News is in them. A content word comes from the topic's own list with probability 0.4, from the list of any
topic with 0.2, else from a list that all topics share; so a topic can be told from a text as a whole, and not always.
"""

from __future__ import annotations

import numpy as np

from custom.data.ag_news import Texts, TextSource

NUM_TRAIN, NUM_TEST = 3200, 800
OWN, ANY = 0.4, 0.2
SEED = 20150904  # the embedded data are the same in every job

_TOPICS = (
    """minister embassy treaty border army rebels parliament election ballot refugees ceasefire militants hostages
    troops president diplomat sanctions protest coup envoy summit village bombing peace province soldiers police
    insurgents nuclear government capital prisoners tribunal dictator exile massacre aid famine earthquake flood""",
    """striker goalkeeper coach inning playoff tournament medal sprinter quarterback touchdown referee penalty champion
    league season pitcher homer stadium olympic cup racket wicket batsman marathon relay captain squad defender overtime
    halftime trophy fans injury roster rookie semifinal victory doping jersey scoreboard""",
    """shares profit earnings investors quarterly dividend merger takeover bank loan inflation retailer stocks bonds oil
    barrel exports tariff bankruptcy lender brokerage market revenue forecast dollar euro index budget deficit airline
    mortgage payroll factory wages shareholders auditor acquisition savings consumer commodity""",
    """software browser processor satellite telescope genome spacecraft virus search console wireless broadband chip
    laptop server patch hackers spam download astronomers laboratory fossil species physicists orbit probe database
    encryption startup gadget pixels robot molecule climate vaccine keyboard users desktop internet code""",
)
_SHARED = """report week official plan group deal leader world country city company people year month talks record chief
    move future pressure change rival decision meeting team law court home history risk hope growth power lead
    result key offer loss win start end return rise fall warning test call delay fight claim push review support"""
_TEMPLATES = (
    "{} {} after {} {} . the {} said on monday that the {} and the {} {} would {} the {}",
    "{} : {} {} . a {} of {} is seen as a {} for {} , the {} {} said",
    "new {} in {} {} . the {} {} was the first since the {} , and {} {} may follow",
    "{} and {} face {} . with {} {} on friday , the {} has a {} before the {} {}",
    "why the {} {} matters . {} , {} and {} were at the {} {} this {} , sources said",
)


def words() -> list[str]:
    """Every word that occurs, sorted."""
    own = [word for text in (*_TOPICS, _SHARED) for word in text.split()]
    fixed = [word for template in _TEMPLATES for word in template.replace("{}", "").split()]
    return sorted({*own, *fixed})


def make_headlines() -> TextSource:
    """The same texts at every call, as many of each topic, in mixed order."""
    generator = np.random.default_rng(SEED)
    texts = _make(generator, NUM_TRAIN), _make(generator, NUM_TEST)
    return TextSource("made-up headlines (4,000)", True, dict(zip(("train", "test"), texts, strict=True)))


def _make(generator: np.random.Generator, number: int) -> Texts:
    topics, shared = [topic.split() for topic in _TOPICS], _SHARED.split()
    labels = generator.permutation(np.arange(number) % len(topics)).astype(np.int64)
    return Texts(labels, [_headline(generator, topics, shared, int(label)) for label in labels])


def _headline(generator: np.random.Generator, topics: list[list[str]], shared: list[str], label: int) -> str:
    template = _TEMPLATES[generator.integers(len(_TEMPLATES))]
    chosen = []
    for draw in generator.random(template.count("{}")):
        any_topic = topics[generator.integers(len(topics))]
        pool = topics[label] if draw < OWN else any_topic if draw < OWN + ANY else shared
        chosen.append(pool[generator.integers(len(pool))])
    return template.format(*chosen)
