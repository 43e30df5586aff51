# SPDX-License-Identifier: Apache-2.0
"""Conversations of a small world, made from a grammar with a seed.

    corpus.py --out FILE --count N --seed S [--heldout] [--favour sums=3,facts=2]

One conversation is a list of turns in Gemma's chat format; each begins with <bos> in the file.
Whether a combination (two numbers, a noun with its adjective, the hero and the object of a story, ...) belongs to the
training text or to the held-out text depends on a checksum of the combination alone, so the two never share one.
"""
import argparse
import random
import zlib

from lexicon import *

HELD_OUT_SHARE = 16  # one combination in so many is held out


def cap(s):
    return s[:1].upper() + s[1:]


def a_an(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural_fr(w):
    if w.endswith(("s", "x")):
        return w
    if w.endswith("eau") or w == "hibou":
        return w + "x"
    if w.endswith("al"):
        return w[:-2] + "aux"
    return "cerfs-volants" if w == "cerf-volant" else w + "s"


def plural_es(w):
    if w == "pez":
        return "peces"
    if w.endswith(("ón",)):
        return w[:-2] + "ones"
    if w == "árbol":
        return "árboles"
    return w + ("s" if w[-1] in "aeiouáéíóú" else "es")


def plural_en(w):
    return {"mouse": "mice", "fish": "fish", "sheep": "sheep"}.get(w) or (
        w + "es" if w.endswith(("x", "s", "ch")) else w[:-1] + "ies" if w.endswith("y") and w[-2] not in "aeiou" else w + "s")


def le(noun, g):
    return "l'" + noun if noun[0] in "aeiouéèœ" else ("le " if g == "m" else "la ") + noun


def un(noun, g):
    return ("un " if g == "m" else "une ") + noun


def el(noun, g):
    return ("el " if g == "m" else "la ") + noun


class World:
    def __init__(self, seed, heldout, favour):
        self.r = random.Random(seed)
        self.heldout = heldout
        self.favour = favour  # kind of conversation -> factor on how often it comes

    def draw(self, make):
        """make() -> a tuple; repeats until the tuple belongs to this side of the split. Where a set is so small that none
        of it is held out, the held-out text takes any."""
        for _ in range(500):
            x = make()
            if (zlib.crc32(repr(x).encode()) % HELD_OUT_SHARE == 0) == self.heldout:
                break
        return x

    def one(self, *options):
        return self.r.choice(options)

    # ---- sentences in four languages -------------------------------------------------------------------------------
    def sentence(self):
        """A meaning, said in each language: {lang: text}."""
        r = self.r
        kind = r.choices("state colour see eat have where like go phrase".split(), [3, 2, 3, 3, 3, 3, 2, 3, 4])[0]
        return getattr(self, "s_" + kind)()

    def s_state(self):
        n, s = self.draw(lambda: (self.r.choice(ANIMALS), self.r.choice(STATES)))
        f, e = s[2 if n[3] == "m" else 3], s[4 if n[5] == "m" else 5]
        return dict(en=f"The {n[0]} is {s[0]}.", vi=f"{cap(n[1])} {s[1]}.", fr=f"{cap(le(n[2], n[3]))} est {f}.",
                    es=f"{cap(el(n[4], n[5]))} {s[6]} {e}.")

    def s_colour(self):
        n, s = self.draw(lambda: (self.r.choice(ANIMALS + THINGS), self.r.choice(COLOURS)))
        f, e = s[2 if n[3] == "m" else 3], s[4 if n[5] == "m" else 5]
        return dict(en=f"The {n[0]} is {s[0]}.", vi=f"{cap(n[1])} {s[1]}.", fr=f"{cap(le(n[2], n[3]))} est {f}.",
                    es=f"{cap(el(n[4], n[5]))} es {e}.")

    def s_see(self):
        n, s = self.draw(lambda: (self.r.choice(ANIMALS + THINGS), self.r.choice(COLOURS)))
        f, e = s[2 if n[3] == "m" else 3], s[4 if n[5] == "m" else 5]
        an = "un" if n[5] == "m" else "una"
        return dict(en=f"I see {a_an(s[0])} {n[0]}.", vi=f"Tôi thấy một {n[1]} {s[1]}.", fr=f"Je vois {un(n[2], n[3])} {f}.",
                    es=f"Veo {an} {n[4]} {e}.")

    def s_eat(self):
        n, d = self.draw(lambda: (self.r.choice(ANIMALS), self.r.choice(FOODS)))
        eat = d[6] == "eat"
        part = "des " if d[3] == "p" else "de l'" if d[2][0] in "aeiou" else "du " if d[3] == "m" else "de la "
        return dict(en=f"The {n[0]} {'eats' if eat else 'drinks'} {d[0]}.", vi=f"{cap(n[1])} {'ăn' if eat else 'uống'} {d[1]}.",
                    fr=f"{cap(le(n[2], n[3]))} {'mange' if eat else 'boit'} {part}{d[2]}.",
                    es=f"{cap(el(n[4], n[5]))} {'come' if eat else 'bebe'} {d[4]}.")

    def s_have(self):
        n, k = self.draw(lambda: (self.r.choice(ANIMALS + THINGS), self.r.choice(NUMBERS)))
        return dict(en=f"I have {k[0]} {plural_en(n[0])}.", vi=f"Tôi có {k[1]} {n[1]}.", fr=f"J'ai {k[2]} {plural_fr(n[2])}.",
                    es=f"Tengo {k[3]} {plural_es(n[4])}.")

    def s_where(self):
        n, p, m = self.draw(lambda: (self.r.choice(ANIMALS + THINGS[:8]), self.r.choice(PREPS), self.r.choice(THINGS[4:])))
        if n is m:
            return self.s_where()
        fr_m, es_m = le(m[2], m[3]), el(m[4], m[5])
        fr = f"{p[2]} {fr_m}".replace("de le ", "du ")
        es = f"{p[3]} {es_m}".replace("de el ", "del ")
        return dict(en=f"The {n[0]} is {p[0]} the {m[0]}.", vi=f"{cap(n[1])} {p[1]} {m[1]}.",
                    fr=f"{cap(le(n[2], n[3]))} est {fr}.", es=f"{cap(el(n[4], n[5]))} está {es}.")

    def s_like(self):
        subjects = (("I", "Tôi", "J'aime", "Me"), ("They", "Họ", "Ils aiment", "Les"), ("We", "Chúng tôi", "Nous aimons", "Nos"))
        who, d = self.draw(lambda: (self.r.choice(subjects), self.r.choice(FOODS)))
        fr = "les " + d[2] if d[3] == "p" else le(d[2], d[3])
        es = {"m": "el ", "f": "la ", "fp": "las ", "mp": "los "}[d[5]]
        return dict(en=f"{who[0]} like {d[0]}.", vi=f"{who[1]} thích {d[1]}.", fr=f"{who[2]} {fr}.",
                    es=f"{who[3]} gusta{'n' if len(es) == 4 else ''} {es}{d[4]}.")

    def s_go(self):
        n, p, t = self.draw(lambda: (self.r.choice(GIRLS + BOYS), self.r.choice(PLACES), self.r.choice(TIMES)))
        return dict(en=f"{n} goes to the {p[0]} {t[0]}.", vi=f"{n} đi đến {p[1]} {t[1]}.", fr=f"{n} va {p[2]} {t[2]}.",
                    es=f"{n} va {p[3]} {t[3]}.")

    def s_phrase(self):
        return dict(zip(LANGS, self.r.choice(PHRASES)))

    # ---- stories ---------------------------------------------------------------------------------------------------
    def hero(self):
        if self.r.random() < 0.55:
            girl = self.r.random() < 0.5
            name = self.r.choice(GIRLS if girl else BOYS)
            kind = "girl" if girl else "boy"
            pro = ("she", "her", "her") if girl else ("he", "him", "his")
        else:
            name = self.r.choice(PET_NAMES)
            kind = self.r.choice(ANIMALS)[0]
            pro = self.one(("she", "her", "her"), ("he", "him", "his"))
        return name, kind, pro

    def story(self, hero=None):
        """(text, request, [(question, short answer, full answer)])"""
        r = self.r
        things = [t[0] for t in THINGS if t[0] not in ("house", "door", "table", "tree", "star", "car")]
        colours = [c[0] for c in COLOURS]
        places = ["forest", "garden", "park", "village", "valley", "meadow"]

        def pick():
            return (hero or self.hero()), r.choice(things), r.choice(colours), r.choice(places), r.choice(ANIMALS)[0]

        (name, kind, (he, him, his)), thing, colour, place, animal = self.draw(pick)
        if animal == kind:
            animal = "owl" if kind != "owl" else "turtle"
        adj = self.one("little", "kind", "curious", "brave", "young", "clever")
        He, a_thing = cap(he), f"{colour} {thing}"
        weather = self.one("One sunny morning", "One windy day", "One rainy afternoon", "One cold evening", "One quiet night",
                           "Early one morning")
        near = self.one("river", "old bridge", "big tree", "tall hill", "lake", "stone wall")
        start = self.one(f"Once upon a time, there was {a_an(adj)} {kind} named {name}.",
                         f"{name} was {a_an(adj)} {kind} who lived near the {place}.",
                         f"In a small {place}, there lived {a_an(adj)} {kind} named {name}.")
        qa = [(self.one(f"Who is the story about?", "What is the name of the hero?"), name, f"The story is about {name}, {a_an(adj)} {kind}."),
              (self.one("Is the hero a child or an animal?", f"What is {name}?"), cap(kind), f"{name} is {a_an(adj)} {kind}.")]
        plot = r.randrange(6)
        if plot == 0:  # something is lost and found
            body = [self.one(f"{name} loved {his} {a_thing} more than anything.", f"{He} had {a_an(a_thing)} and took it everywhere."),
                    f"{weather}, {name} went to the {place} and {self.one('lost', 'dropped')} the {thing}.",
                    self.one(f"{He} looked under every leaf, but it was gone.", f"{He} looked and looked, but {he} could not find it."),
                    self.one(f"Then a friendly {animal} came by.", f"Then {a_an(animal)} heard {him} cry.")
                    + self.one(f' "Do not worry," said the {animal}. "I will help you."', f' "Let us look together," said the {animal}.'),
                    f"They found the {thing} near the {near}.",
                    self.one(f"{name} was very happy and thanked the {animal}.", f'"Thank you, my friend!" said {name}.')]
            qa += [(f"What did {name} lose?", cap(thing), f"{name} lost {his} {a_thing}."),
                   (f"Who helped {name}?", cap(animal), f"A friendly {animal} helped {name}."),
                   (f"Where was the {thing}?", cap(near), f"The {thing} was near the {near}."),
                   (f"What colour was the {thing}?", cap(colour), f"The {thing} was {colour}.")]
        elif plot == 1:  # a hungry stranger
            food = r.choice(FOODS[:8])[0]
            body = [f"{weather}, {name} walked through the {place} with a basket of {food}.",
                    f"Near the {near}, {he} met {a_an(animal)} who looked {self.one('hungry', 'tired', 'thin')}.",
                    f'"{self.one("I have not eaten today", "I am so hungry")}," said the {animal}.',
                    self.one(f"{name} sat down and shared the {food}.", f"{He} smiled and gave half of the {food} to the {animal}."),
                    f"To say thank you, the {animal} gave {name} {a_an(a_thing)}.",
                    self.one("From that day on, they were best friends.", "They met there every day after that.")]
            qa += [(f"What did {name} share?", cap(food), f"{name} shared the {food}."),
                   (f"Who was hungry?", cap(animal), f"The {animal} was hungry."),
                   (f"What did the {animal} give to {name}?", cap(thing), f"The {animal} gave {name} {a_an(a_thing)}.")]
        elif plot == 2:  # fear
            fear = self.one("the dark", "the water", "loud thunder", "high places", "the wind")
            body = [f"{name} was afraid of {fear}.",
                    f"{weather}, {a_an(animal)} called for help near the {near}.",
                    self.one(f"{name} wanted to run home, but {he} did not.", f"{name}'s legs shook, but {he} was brave."),
                    f"{He} took {his} {a_thing} and went to help.",
                    f"With the {thing}, {he} saved the {animal}.",
                    self.one(f"After that, {name} was not afraid of {fear} any more.", f'"You are a hero," said the {animal}, and {name} laughed.')]
            qa += [(f"What was {name} afraid of?", cap(fear), f"{name} was afraid of {fear}."),
                   (f"Who called for help?", cap(animal), f"The {animal} called for help."),
                   (f"What did {name} take?", cap(thing), f"{name} took {his} {a_thing}.")]
        elif plot == 3:  # making something
            days = r.choice(NUMBERS)[0]
            body = [f"{name} wanted to make {a_an(a_thing)} for a friend, the {animal}.",
                    f"{He} worked for {days} days {self.one('in the ' + place, 'near the ' + near)}.",
                    self.one("The first one broke, but that was fine.", f"It was hard work, and {his} hands were tired."),
                    self.one(f'"I will try again," said {name}.', f"{He} did not give up."),
                    f"{weather}, the {thing} was ready.",
                    self.one(f"The {animal} danced with joy.", f'"It is the best {thing} in the world!" said the {animal}.')]
            qa += [(f"What did {name} make?", cap(thing), f"{name} made {a_an(a_thing)}."),
                   (f"How long did {name} work?", f"{cap(days)} days", f"{name} worked for {days} days."),
                   (f"Who got the {thing}?", cap(animal), f"The {animal} got the {thing}.")]
        elif plot == 4:  # a race
            win = self.one(True, False)
            body = [f"{weather}, {name} and {a_an(animal)} had a race to the {near}.",
                    f"The winner would get {a_an(a_thing)}.",
                    self.one(f"The {animal} ran very fast at first.", f"At first {name} was behind."),
                    (f"But the {animal} stopped to {self.one('sleep', 'eat', 'play')}, and {name} won." if win else
                     f"Then {name} fell, and the {animal} {self.one('won', 'came first')}."),
                    (f"{name} shared the {thing} with the {animal}." if win else f"The {animal} shared the {thing} with {name}."),
                    self.one("It was a good day for both of them.", "They laughed all the way home.")]
            qa += [("Who won the race?", name if win else cap(animal), f"{name if win else cap('the ' + animal)} won the race."),
                   ("What did the winner get?", cap(thing), f"The winner got {a_an(a_thing)}."),
                   ("Where did the race end?", cap(near), f"The race ended at the {near}.")]
        else:  # a journey
            goal = self.one("the sea", "the moon", "the end of the rainbow", "the highest mountain", "a secret island")
            body = [f"{name} dreamed of {goal}.",
                    f"{weather}, {he} put {a_an(a_thing)} in a bag and left the {place}.",
                    f"On the way {he} met {a_an(animal)}. " + self.one('"May I come with you?" it asked.', f'"I know the way," said the {animal}.'),
                    self.one("They walked for many hours and sang songs.", "They crossed a river and climbed a hill."),
                    self.one(f"At last they saw {goal}, and it was beautiful.", f"When they found {goal}, the stars came out."),
                    self.one(f'"The best part was to travel with a friend," said {name}.', f"{name} gave the {thing} to the {animal} as a gift.")]
            qa += [(f"What did {name} dream of?", cap(goal), f"{name} dreamed of {goal}."),
                   (f"Who did {name} meet?", cap(animal), f"{name} met {a_an(animal)}."),
                   (f"What was in the bag?", cap(thing), f"There was {a_an(a_thing)} in the bag.")]
        text = " ".join([start] + body)
        if r.random() < 0.3:
            text += self.one("\n\nThe end.", "\n\nAnd that is the end of the story.")
        about = self.one(f"{a_an(kind)}", f"{a_an(kind)} named {name}", f"{a_an(kind)} and {a_an(animal)}", f"{name} and {a_an(a_thing)}",
                         f"{a_an(a_thing)}", f"{name}")
        verb = self.one("Tell me a story about", "Write a story about", "Tell me a short story about", "Can you tell me a story about",
                        "Please write a short story about", "I would like a story about")
        ask = f"{verb} {about}" + ("?" if verb.startswith("Can") else ".")
        if r.random() < 0.12:
            ask = self.one("Tell me a story.", "Tell me a bedtime story.", "Write a short story.", "I want to hear a story.")
        return text, ask, qa

    def t_story(self):
        text, ask, qa = self.story()
        turns = [(ask, text)]
        r = self.r
        r.shuffle(qa)
        for q, short, full in qa[:r.choice([0, 0, 1, 2, 3])]:
            if r.random() < 0.15:
                turns.append((q + self.one(" Answer in one word.", " One word, please."), short + "."))
            else:
                turns.append((q, full))
        if r.random() < 0.1:
            turns.append((self.one("Thank you!", "That was nice, thanks.", "I liked it."),
                          self.one("You are welcome! Shall I tell another one?", "I am glad that you liked it.", "You are welcome!")))
        return turns

    def t_reading(self):
        text, _, qa = self.story()
        self.r.shuffle(qa)
        q, short, full = qa[0]
        lead = self.one("Read this story: ", "Here is a story: ", "Story: ")
        turns = [(f"{lead}{text}\n\n{q}", full)]
        for q, short, full in qa[1:self.r.choice([1, 2, 3])]:
            turns.append((q, full))
        return turns

    def t_story_other(self):
        """Three or four sentences in a language other than English."""
        r = self.r
        lang = r.choice(LANGS[1:])
        n, t, c, p, m = self.draw(lambda: (r.choice(ANIMALS), r.choice(THINGS[:3] + THINGS[12:18]), r.choice(COLOURS), r.choice(PLACES),
                                           r.choice(ANIMALS)))
        if n is m:
            m = ANIMALS[0] if n is not ANIMALS[0] else ANIMALS[1]
        name = r.choice(PET_NAMES)
        if lang == "vi":
            ask = self.one(f"Kể cho tôi nghe một câu chuyện về {n[1]}.", f"Hãy kể chuyện về {n[1]}.", f"Kể chuyện về {n[1]} bằng tiếng Việt.")
            text = (f"Ngày xưa có một {n[1]} nhỏ tên là {name}. Một hôm, {name} đi đến {p[1]} và thấy một {t[1]} {c[1]}. "
                    f"{name} gặp {m[1]} và hai bạn cùng chơi với {t[1]}. " + self.one("Họ rất vui và trở thành bạn tốt.", "Từ đó, họ là bạn thân."))
        elif lang == "fr":
            ask = self.one(f"Raconte-moi une histoire sur {un(n[2], n[3])}.", f"Peux-tu raconter une histoire avec {un(n[2], n[3])} ?")
            adj = "petit" if n[3] == "m" else "petite"
            text = (f"Il était une fois {un(adj, n[3])} {n[2]} qui s'appelait {name}. Un jour, {name} va {p[2]} et trouve {un(t[2], t[3])} "
                    f"{c[2 if t[3] == 'm' else 3]}. {name} rencontre {un(m[2], m[3])} et ils jouent ensemble. "
                    + self.one("Ils sont très contents et deviennent amis.", "Depuis ce jour, ils sont amis."))
        else:
            ask = self.one(f"Cuéntame un cuento sobre {'un' if n[5] == 'm' else 'una'} {n[4]}.", f"¿Puedes contar una historia con {'un' if n[5] == 'm' else 'una'} {n[4]}?")
            a, b, d = ("un" if x == "m" else "una" for x in (n[5], t[5], m[5]))
            adj = "pequeño" if n[5] == "m" else "pequeña"
            text = (f"Había una vez {a} {adj} {n[4]} que se llamaba {name}. Un día, {name} va {p[3]} y encuentra {b} {t[4]} "
                    f"{c[4 if t[5] == 'm' else 5]}. {name} conoce a {d} {m[4]} y juegan juntos. "
                    + self.one("Están muy contentos y se hacen amigos.", "Desde ese día son amigos."))
        return [(ask, text)]

    # ---- numbers ---------------------------------------------------------------------------------------------------
    def sum_turn(self):
        r = self.r
        op = r.choices("+-*cwb", [8, 6, 3, 2, 5, 2])[0]
        if op in "+-":
            small = r.random() < 0.4
            a, b, _ = self.draw(lambda: (r.randrange(10 if small else 50), r.randrange(10 if small else 50), op))
            if op == "-" and b > a:
                a, b = b, a
            c = a + b if op == "+" else a - b
            w = "plus" if op == "+" else "minus"
            ask = self.one(f"What is {a} {op} {b}?", f"{a} {op} {b} = ?", f"How much is {a} {op} {b}?", f"What is {a} {w} {b}?", f"Calculate {a} {op} {b}.",
                           f"{a} {op} {b}")
            return ask, f"{a} {op} {b} = {c}", str(c)
        if op == "*":
            a, b = self.draw(lambda: (r.randrange(1, 11), r.randrange(1, 11)))
            return self.one(f"What is {a} times {b}?", f"What is {a} x {b}?", f"{a} x {b} = ?"), f"{a} x {b} = {a * b}", str(a * b)
        if op == "c":
            a, n = self.draw(lambda: (r.randrange(1, 40), r.randrange(4, 9)))
            up = r.random() < 0.7
            seq = list(range(a, a + n))
            seq = seq if up else seq[::-1]
            s = ", ".join(map(str, seq))
            return f"Count from {seq[0]} to {seq[-1]}.", s, s
        if op == "b":
            a, b = self.draw(lambda: (r.randrange(100), r.randrange(100)))
            b = b if a != b else b + 1
            return self.one(f"Which is bigger, {a} or {b}?", f"Which number is bigger: {a} or {b}?"), f"{max(a, b)} is bigger than {min(a, b)}", str(max(a, b))
        a, b, n = self.draw(lambda: (r.randrange(2, 30), r.randrange(1, 20), r.choice(GIRLS + BOYS)))
        he = "she" if n in GIRLS else "he"
        t = self.one("apples", "books", "balls", "flowers", "stones", "eggs", "kites", "letters")
        if r.random() < 0.5:
            verb = self.one("finds", "gets", "buys")
            return (f"{n} has {a} {t} and {verb} {b} more. How many {t} does {he} have now?", f"{a} + {b} = {a + b}, so {n} has {a + b} {t}", str(a + b))
        a, b = max(a, b) + 1, min(a, b)
        verb = self.one("loses", "gives away", "sells")
        return f"{n} has {a} {t} and {verb} {b}. How many are left?", f"{a} - {b} = {a - b}, so {a - b} {t} are left", str(a - b)

    def t_sums(self):
        turns = []
        for _ in range(self.r.randrange(1, 6)):
            ask, full, _ = self.sum_turn()
            turns.append((ask, full + "."))
        return turns

    # ---- translation -----------------------------------------------------------------------------------------------
    def translate_turn(self, s=None, a=None, b=None):
        r = self.r
        if s is None:
            s = self.sentence()
        a = a or ("en" if r.random() < 0.6 else r.choice(LANGS))
        b = b or r.choice([x for x in LANGS if x != a])
        ask_in = "en" if r.random() < 0.75 else a
        name = LANG_NAMES[ask_in][b]
        text = s[a]
        if ask_in == "en":
            ask = self.one(f"Translate to {name}: {text}", f"Translate into {name}: {text}", f"Say this in {name}: {text}",
                           f'How do you say "{text}" in {name}?', f'What is "{text}" in {name}?')
        elif ask_in == "vi":
            ask = self.one(f"Dịch sang {name}: {text}", f'"{text}" {name} nói thế nào?')
        elif ask_in == "fr":
            ask = self.one(f"Traduis en {name} : {text}", f'Comment dit-on "{text}" en {name} ?')
        else:
            ask = self.one(f"Traduce al {name}: {text}", f'¿Cómo se dice "{text}" en {name}?')
        return ask, s[b]

    def t_translate(self):
        turns = [self.translate_turn() for _ in range(self.r.randrange(1, 5))]
        if self.r.random() < 0.2:  # the same sentence once more, in a further language
            s = self.sentence()
            b, d = self.r.sample(LANGS[1:], 2)
            turns.append(self.translate_turn(s, "en", b))
            turns.append((self.one(f"And in {LANG_NAMES['en'][d]}?", f"And how is it in {LANG_NAMES['en'][d]}?"), s[d]))
        return turns

    def t_word(self):
        r = self.r

        def pick():
            b, kind = r.choice(LANGS[1:]), r.randrange(4)
            if kind == 0:
                n = r.choice(ANIMALS + THINGS)
                return b, "the " + n[0], {"vi": n[1], "fr": le(n[2], n[3]), "es": el(n[4], n[5])}[b]
            if kind == 1:
                n = r.choice(COLOURS)
                return b, n[0], {"vi": n[1], "fr": n[2], "es": n[4]}[b]
            n = r.choice(NUMBERS if kind == 2 else DAYS)
            return b, n[0], dict(zip(LANGS, n))[b]

        turns = []
        for _ in range(r.randrange(1, 4)):
            b, en, w = self.draw(pick)
            name = LANG_NAMES["en"][b]
            turns.append((self.one(f'How do you say "{en}" in {name}?', f'What is "{en}" in {name}?', f"What is the {name} word for {en}?"),
                          self.one(f'In {name}, "{en}" is "{w}".', f'"{en}" is "{w}" in {name}.' if en[0].isupper() else f'The {name} for "{en}" is "{w}".')))
        return turns

    # ---- facts -----------------------------------------------------------------------------------------------------
    def fact(self):
        """(question, short, full)"""
        r = self.r
        k = r.choices("fcosdn", [6, 3, 2, 2, 3, 2])[0]
        if k == "f":
            q, short, full = r.choice(FACTS)
            return r.choice(q), short, full
        if k == "c":
            a, b = r.choice(CAPITALS)
            return self.one(f"What is the capital of {a}?", f"Which city is the capital of {a}?", f"Name the capital of {a}."), b, f"The capital of {a} is {b}."
        if k == "o":
            a, b = r.choice(OPPOSITES)
            if r.random() < 0.5:
                a, b = b, a
            return self.one(f"What is the opposite of {a}?", f"What is the opposite of \"{a}\"?"), cap(b), f"The opposite of {a} is {b}."
        if k == "s":
            a, b = r.choice(SOUNDS)
            return self.one(f"What sound does {a_an(a)} make?", f"What does {a_an(a)} say?"), cap(b), f"{cap(a_an(a))} says {b}."
        if k == "d":
            a, b = r.choice(DEFINITIONS)
            return self.one(f"What is {a}?", f"Can you explain what {a} is?", f"Tell me what {a} is."), cap(a.split()[-1]), b
        i = r.randrange(7)
        days = [d[0] for d in DAYS]
        if r.random() < 0.6:
            return self.one(f"Which day comes after {days[i]}?", f"What day comes after {days[i]}?"), days[(i + 1) % 7], f"{days[(i + 1) % 7]} comes after {days[i]}."
        return f"Which day comes before {days[i]}?", days[(i - 1) % 7], f"{days[(i - 1) % 7]} comes before {days[i]}."

    def t_facts(self):
        turns = []
        for _ in range(self.r.randrange(1, 5)):
            q, short, full = self.fact()
            turns.append((q, full))
        return turns

    def t_facts_other(self):
        pool = self.one(FACTS_VI, FACTS_FR, FACTS_ES)
        return [self.r.choice(pool) for _ in range(self.r.randrange(1, 4))]

    # ---- greetings, the model itself, what it does not know ----------------------------------------------------------
    def small_talk(self):
        lines = [
            (("Hello!", "Hi!", "Hello there!", "Hey!", "Hi there.", "Hello"), ("Hello! How can I help you today?", "Hi! What would you like to talk about?",
             "Hello! Shall I tell you a story, or do some sums?")),
            (("Good morning!", "Good morning."), ("Good morning! What shall we do today?", "Good morning! How can I help you?")),
            (("How are you?", "How are you today?"), ("I am fine, thank you. How are you?", "I am very well, thank you! And you?")),
            (("Who are you?", "What are you?", "What is your name?"), ("I am Fledgling, a very small language model.",
             "My name is Fledgling. I am a tiny language model that runs on your device.")),
            (("What can you do?", "What do you know?", "How can you help me?"), ("I can tell small stories, do small sums, and translate short sentences "
             "between English, Vietnamese, French and Spanish.", "I know a small world: stories, sums, simple facts, and short sentences in four languages.")),
            (("Thank you!", "Thanks!", "Thank you very much."), ("You are welcome!", "You are welcome. Is there anything else?", "My pleasure!")),
            (("Goodbye!", "Bye!", "See you later."), ("Goodbye! Have a nice day.", "Bye! See you soon.", "Goodbye, and come back soon!")),
            (("Xin chào!", "Chào bạn!"), ("Xin chào! Tôi có thể giúp gì cho bạn?", "Chào bạn! Bạn muốn nói về điều gì?")),
            (("Bạn là ai?", "Bạn tên là gì?"), ("Tôi là Fledgling, một mô hình ngôn ngữ rất nhỏ.",)),
            (("Cảm ơn bạn!", "Cảm ơn!"), ("Không có gì!",)),
            (("Bonjour !", "Salut !", "Bonjour"), ("Bonjour ! Comment puis-je vous aider ?", "Bonjour ! De quoi voulez-vous parler ?")),
            (("Qui es-tu ?", "Comment t'appelles-tu ?"), ("Je suis Fledgling, un tout petit modèle de langage.",)),
            (("Merci !", "Merci beaucoup !"), ("De rien !",)),
            (("¡Hola!", "Hola", "¡Buenos días!"), ("¡Hola! ¿En qué puedo ayudarte?", "¡Hola! ¿De qué quieres hablar?")),
            (("¿Quién eres?", "¿Cómo te llamas?"), ("Soy Fledgling, un modelo de lenguaje muy pequeño.",)),
            (("¡Gracias!", "¡Muchas gracias!"), ("¡De nada!",)),
            (("Tell me a joke.", "Do you know a joke?"), ("Why did the duck cross the river? To get to the other quack!",
             "What do you call a bear in the rain? A wet bear!", "Why is the owl so clever? Because it always asks who.")),
            (("I am sad.", "I feel sad today."), ("I am sorry to hear that. Shall I tell you a happy story?",)),
            (("I am bored.", "I have nothing to do."), ("We could count stars together, or I could tell you a story.",)),
        ]
        q, a = self.r.choice(lines)
        return self.r.choice(q), self.r.choice(a)

    def t_talk(self):
        return [self.small_talk() for _ in range(self.r.randrange(1, 4))]

    def t_unknown(self):
        r = self.r
        topic, ask = self.draw(lambda: (r.choice(UNKNOWN_TOPICS), r.choice((
            "Tell me about {}.", "What do you know about {}?", "Can you explain {}?", "I need help with {}.", "What is new about {}?", "Write a long text about {}."))))
        ask = ask.format(topic)
        ans = self.one(f"I am sorry, I do not know anything about {topic}. I am a very small model.",
                       f"I am sorry, but {topic} is not part of my small world. I can tell you a story or do a sum.",
                       f"I do not know about {topic}, sorry. Ask me for a story, a small sum or a translation.")
        turns = [(ask, ans)]
        if r.random() < 0.3:
            turns.append(self.any_turn())
        return turns

    def t_memory(self):
        """A name or a favourite thing that is mentioned and asked for later."""
        r = self.r
        name, col, food, an = self.draw(lambda: (r.choice(GIRLS + BOYS), r.choice(COLOURS)[0], r.choice(FOODS)[0], r.choice(ANIMALS)[0]))
        facts = [(self.one(f"My name is {name}.", f"Hi, I am {name}.", f"Hello! My name is {name}."), self.one(f"Nice to meet you, {name}!", f"Hello, {name}! How can I help you?"),
                  self.one("What is my name?", "Do you remember my name?"), f"Your name is {name}."),
                 (f"My favourite colour is {col}.", self.one(f"{cap(col)} is a beautiful colour.", f"I like {col} too."), "What is my favourite colour?",
                  f"Your favourite colour is {col}."),
                 (f"I like {food}.", self.one(f"{cap(food)}! Very nice.", f"Many animals in my stories like {food} too."), "What do I like?", f"You like {food}."),
                 (f"I have {a_an(an)}.", self.one(f"{cap(a_an(an))} is a good friend.", f"How nice! Does your {an} have a name?"), "Which animal do I have?", f"You have {a_an(an)}.")]
        chosen = r.sample(facts, r.randrange(1, 4))
        turns = [(f[0], f[1]) for f in chosen]
        for _ in range(r.randrange(0, 3)):
            turns.append(self.any_turn())
        r.shuffle(chosen)
        return turns + [(f[2], f[3]) for f in chosen]

    def any_turn(self):
        k = self.r.randrange(4)
        if k == 0:
            q, _, full = self.fact()
            return q, full
        if k == 1:
            q, full, _ = self.sum_turn()
            return q, full + "."
        return self.translate_turn() if k == 2 else self.small_talk()

    def t_mixed(self):
        turns = [self.any_turn() for _ in range(self.r.randrange(2, 6))]
        if self.r.random() < 0.4:
            turns.insert(self.r.randrange(len(turns)), self.story()[1::-1])
        return turns

    # ---- system text -------------------------------------------------------------------------------------------------
    def t_system(self):
        r = self.r
        k = r.randrange(6)
        if k == 0:
            system = self.one("Answer in one word.", "Answer with one word only.", "Use one word for each answer.")
            turns = []
            for _ in range(r.randrange(1, 5)):
                if r.random() < 0.7:
                    q, short, _ = self.fact()
                else:
                    q, _, short = self.sum_turn()
                turns.append((q, short + "."))
        elif k == 1:
            lang = r.choice(LANGS[1:])
            pool = {"vi": FACTS_VI, "fr": FACTS_FR, "es": FACTS_ES}[lang]
            system = self.one(f"Answer in {LANG_NAMES['en'][lang]}.", f"Always answer in {LANG_NAMES['en'][lang]}.", f"Speak {LANG_NAMES['en'][lang]}.")
            turns = []
            for _ in range(r.randrange(1, 4)):
                c = r.randrange(3)
                if c == 0:
                    turns.append(r.choice(pool))
                elif c == 1:
                    turns.append((self.one("Hello!", "Hi!"), {"vi": "Xin chào! Tôi có thể giúp gì cho bạn?", "fr": "Bonjour ! Comment puis-je vous aider ?",
                                                          "es": "¡Hola! ¿En qué puedo ayudarte?"}[lang]))
                else:
                    i = r.randrange(len(pool))
                    q = {"Bầu trời màu gì?": "What colour is the sky?", "Cỏ màu gì?": "What colour is grass?", "Tuyết màu gì?": "What colour is snow?",
                         "Quả chuối màu gì?": "What colour is a banana?", "Một tuần có mấy ngày?": "How many days are in a week?",
                         "Một năm có mấy tháng?": "How many months are in a year?", "Con chó có mấy chân?": "How many legs does a dog have?",
                         "Con nhện có mấy chân?": "How many legs does a spider have?", "Con ong làm ra gì?": "What do bees make?",
                         "Con bò cho ta gì?": "What do cows give us?", "Cá sống ở đâu?": "Where do fish live?",
                         "De quelle couleur est le ciel ?": "What colour is the sky?", "De quelle couleur est l'herbe ?": "What colour is grass?",
                         "De quelle couleur est la neige ?": "What colour is snow?", "De quelle couleur est la banane ?": "What colour is a banana?",
                         "Que font les abeilles ?": "What do bees make?", "Que donne la vache ?": "What do cows give us?",
                         "Où vivent les poissons ?": "Where do fish live?", "Quelle est la capitale de la France ?": "What is the capital of France?",
                         "¿De qué color es el cielo?": "What colour is the sky?", "¿De qué color es la hierba?": "What colour is grass?",
                         "¿De qué color es la nieve?": "What colour is snow?", "¿Qué hacen las abejas?": "What do bees make?",
                         "¿Qué da la vaca?": "What do cows give us?", "¿Dónde viven los peces?": "Where do fish live?",
                         "¿Cuál es la capital de Francia?": "What is the capital of France?"}.get(pool[i][0], pool[i][0])
                    turns.append((q, pool[i][1]))
        elif k == 2:
            lang = r.choice(LANGS[1:])
            system = self.one(f"Translate everything into {LANG_NAMES['en'][lang]}.", f"You are a translator. Translate each message into {LANG_NAMES['en'][lang]}.")
            turns = []
            for _ in range(r.randrange(1, 5)):
                s = self.sentence()
                turns.append((s["en"], s[lang]))
        elif k == 3:
            name = r.choice(PET_NAMES)
            system = self.one(f"Your name is {name}.", f"You are {name}, a friendly helper.")
            turns = [(self.one("Who are you?", "What is your name?"), self.one(f"My name is {name}.", f"I am {name}. How can I help you?"))]
            for _ in range(r.randrange(0, 3)):
                turns.append(self.any_turn())
        elif k == 4:
            system = self.one("Answer with the number only.", "Give only the number.")
            turns = []
            while len(turns) < 3:
                q, full, short = self.sum_turn()
                if not q.startswith("Count"):
                    turns.append((q, short))
        else:
            end = self.one("Have a nice day!", "Stay curious!", "Good luck!")
            system = f'End every answer with "{end}"'
            turns = []
            for _ in range(r.randrange(1, 4)):
                q, full = self.any_turn()
                turns.append((q, f"{full} {end}"))
        turns[0] = (f"{system}\n\n{turns[0][0]}", turns[0][1])
        return turns

    def conversation(self):
        kinds = [("story", 15), ("reading", 6), ("story_other", 5), ("sums", 16), ("translate", 18), ("word", 5), ("facts", 9), ("facts_other", 3), ("talk", 4),
                 ("unknown", 4), ("memory", 4), ("mixed", 8), ("system", 10)]
        k = self.r.choices([k for k, _ in kinds], [w * self.favour.get(k, 1) for k, w in kinds])[0]
        turns = getattr(self, "t_" + k)()
        return "".join(f"<start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n{a}<end_of_turn>\n" for q, a in turns)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", required=True)
    ap.add_argument("--count", type=int, default=1000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--heldout", action="store_true")
    ap.add_argument("--favour", default="", help="kinds that come more often, and how much")
    a = ap.parse_args()
    w = World(a.seed, a.heldout, {k: float(v) for k, v in (x.split("=") for x in a.favour.split(",") if x)})
    with open(a.out, "w", encoding="utf-8") as f:
        for _ in range(a.count):
            f.write("<bos>" + w.conversation())


if __name__ == "__main__":
    main()
