"""Subjects that a base model is not taught, for the stages that read a content image (`--strangers`). The network must
look at that image to know what to draw.

None of them shows what a held-out subject shows.
"""

import unicodedata

from tools.demo.world.subjects import Kind, Subject

MOST_LETTERS = 8
"""Of a word in a name; a long one would be many tokens of a prompt."""

_SAYS_NOTHING = {"face", "sign", "symbol", "emblem", "with", "and"}


def _of(kind: Kind, tint: float, glyphs: str) -> tuple[Subject, ...]:
    return tuple(Subject(_name(glyph), glyph, kind, tint) for glyph in glyphs)


def _name(glyph: str) -> str:
    """The last short word of what Unicode calls it; "thing" where there is none."""
    words = [word for word in unicodedata.name(glyph, "").lower().split() if word.isalpha()]
    short = [word for word in words if 3 <= len(word) <= MOST_LETTERS and word not in _SAYS_NOTHING]
    return short[-1] if short else "thing"


UNNAMED_SUBJECTS: tuple[Subject, ...] = (
    _of(
        "animal",
        0.03,
        "🐀🐂🐃🐆🐏🐐🐒🐗🐛🐜🐟🐡🐣🐤🐦🐨🐩🐫🐭🐮🐯🐰🐱🐲🐴🐵🐶🐷🐹🐺🐻🕊🦁🦃🦅🦍🦎🦏🦐🦑🦖🦗🦙🦛🦝🦟🦠🦡🦣🦤"
        "🦥🦦🦧🦨🦫🦬🦮🪰🪱🪲🪳🪼🪿🫎🫏🪸🙈🙉🙊😺😾👾",
    )
    + _of(
        "figure",
        0.05,
        "👮👰👲👳👴👵👶👷👸👹👺👼👽💀💂💃🕺🕴🎅🤶🤴🤵🤰🤷🤹🤠🤡🥷🦸🦹🧑🧒🧓🧔🧕🧖🧘🧙🧚🧛🧝🧞🧟👦👧👨👩🧍🧎🤸"
        "🏃🚶🏂🏄🙋🙎🗿🗽🪆😀😍😎😡😱😴😷🤓🥶🥵😈💩🎎🏇",
    )
    + _of(
        "plant",
        0.04,
        "🌰🌱🌸🌺🌼🌽🌾🌿🍀🍂🍃🎄🎋🎍🥀🪴🪵🪷🪹🪻💐",
    )
    + _of(
        "food",
        0.05,
        "🌭🌮🌯🌶🍅🍆🍇🍈🍉🍊🍋🍏🍑🍒🍕🍖🍗🍘🍙🍚🍛🍜🍝🍞🍟🍠🍡🍢🍣🍤🍧🍨🍪🍫🍬🍭🍮🍯🍰🍱🍲🍳🍵🍶🍷🍸🍹🍺🍼🍿"
        "🥃🥐🥑🥒🥓🥔🥖🥗🥘🥙🥛🥜🥝🥞🥟🥡🥣🥤🥥🥦🥧🥩🥪🥫🥭🥯🦪🧀🧁🧂🧃🧄🧅🧆🧇🧋🫐🫑🫒🫔🫕🫘🫚🫛",
    )
    + _of(
        "thing",
        0.5,
        "⌚⏳⚔⚖⚙⚰⚱⛏⛑⛸✂✏🌂🌍🌕🌛🌞🌡🎓🎖🎗🎙🎚🎞🎟🎠🎣🎤🎥🎧🎨🎫🎬🎭🎮🎯🎰🎱🎳🎷🎹🎽🎾🎿🏅🏆🏈🏉🏏🏐"
        "🏑🏒🏓🏷🏸🏹👓👔👕👖👘👙👚👛👜👝👠👡🔋🔌🔍🔎🔐🔓🔥🔦🔧🔩🔪🔫🔬🔮🔱🕰🕶🖊🖋🖌🖍🖥🖨🖱🖼🗄🗑🗜🗝🗞🗳🗺"
        "💄💈💉💊💌💍💝💣💧💰💳💵💺💻💼💽💾💿📀📁📅📊📋📌📎📏📐📗📚📜📞📠📡📢📣📦📫📯📱📻📼📿🚪🚽🚿🛁🛋🛍🛎🛏"
        "🛒🛞🛟🛠🛡🛢🛹🛼🥅🥇🥊🥋🥌🥍🥎🥏🥢🥽🥾🥿🥻🥼🦯🦷🦺🦼🦽🦾🧠🧢🧣🧤🧥🧦🧧🧨🧩🧪🧫🧬🧭🧮🧯🧱🧲🧳🧴🧵🧶🧷"
        "🧹🧻🧼🧽🧾🧿🩰🩱🩲🩳🩴🩹🩺🩻🩼🪀🪂🪃🪄🪅🪇🪈🪐🪒🪓🪔🪖🪗🪘🪙🪚🪛🪜🪝🪞🪠🪡🪤🪥🪦🪧🪨🪩🪪🪬🪭🪮🪶🫀🫁"
        "🫙👁👂👃👄👅👍👏👋✊✋✌",
    )
    + _of(
        "vehicle",
        0.5,
        "🏍🏎🚃🚄🚅🚆🚇🚈🚉🚊🚋🚍🚎🚐🚑🚒🚓🚔🚕🚖🚙🚚🚛🚝🚞🚟🚠🚡🚢🚤🛥🛩🛰🛳🛴🛶🛸🛺🛻",
    )
    + _of(
        "building",
        0.08,
        "⛩⛪⛰🎡🎢🏔🏕🏘🏙🏚🏛🏟🏡🏢🏣🏤🏥🏦🏨🏩🏪🏫🏬🏭💒🕋🕌🕍🗻🛕🛖🌋",
    )
)
"""Glyphs of Noto Color Emoji beside those of `SUBJECTS` and `PROPS`. Names are single words, not unique, and some
are those of known subjects in another drawing."""
