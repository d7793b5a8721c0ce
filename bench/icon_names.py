"""Which icons are drawn, and in what words: the class table of `Icons`, the anchor pool, captions.

The class table is the hand-made file `icons_classes.json` in the folder of the data sets: for each class and icon family
the icons with their phrases, and the words by which other icons of the same thing are kept out of the anchor pool.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np

from bench import _paths
from bench.icon_fonts import FONTS, Icon, charmap, cuts

DOMAINS = {"ink": "fontawesome", "chalk": "material", "woodcut": "phosphor", "gradient": "remix"}
"""Domain of `Icons`, which is also the manner its icons are drawn in → icon family."""

_CAPTIONS = {
    "ink": ("a flat icon of {}", "an ink silhouette of {}", "a plain dark pictogram of {}"),
    "chalk": ("a chalk drawing of {}", "a chalk sketch of {} on a blackboard", "{} drawn with chalk"),
    "woodcut": ("a woodcut of {}", "an old print of {} on brown paper", "a carved woodblock print of {}"),
    "gradient": ("a colourful icon of {}", "a bright app icon of {}", "{} on a bright gradient"),
}

_FILLER = {"variant", "alt", "simple", "box", "outline", "line", "fill", "circle", "square", "sharp", "s"}
_ADJECTIVES = {
    "broken", "checkered", "classic", "closed", "crossed", "cracked", "curly", "double", "electric", "empty", "fast",
    "flat", "folded", "fried", "front", "full", "half", "high", "horizontal", "hot", "large", "low", "medium", "modern",
    "multiple", "open", "retro", "ringing", "rolling", "round", "single", "small", "tall", "tilted", "triangular", "vertical",
}  # fmt: skip
_LETTERS = {"pdf", "usb", "dna", "led", "sd", "cd", "dvd", "ufo", "atm", "gps", "wifi", "vr", "qr"}

# Badges put on another icon, and states of it: "-plus", "-off", "-search". They would fill the pool with near copies.
_BADGES = set(
    ["plus", "minus", "check", "checked", "off", "remove", "alert", "cog", "settings", "edit", "cancel", "sync", "refresh", "search", "lock", "open-in", "marker", "question", "pause", "play", "stop", "add", "slash", "xmark", "exclamation", "x", "badge", "info", "information", "auto", "restart", "pending", "off-outline", "network", "download", "upload", "import", "export", "switch", "update", "link", "multiple", "user", "account", "low", "high", "medium", "notch", "variant", "incoming", "outgoing", "missed", "user-outline", "percent", "numeric", "outline", "fill", "loading", "remote", "strike", "pulse", "lines", "line-scan", "triangle"]
)  # fmt: skip
# Signs of the desktop and of text, arrows, shapes, letters: no things, and no captions that mean anything.
_ABSTRACT = set(
    ["arrow", "arrows", "chevron", "caret", "angle", "angles", "align", "format", "border", "alpha", "numeric", "axis", "sort", "menu", "list", "list-status", "text", "font", "math", "square", "circle", "rectangle", "triangle", "hexagon", "octagon", "pentagon", "ellipse", "shape", "vector", "view", "page", "layout", "layers", "dots", "code", "file", "folder", "files", "folders", "document", "account", "user", "users", "contacts", "group", "chart", "graph", "diagram", "git", "source", "function", "select", "selection", "resize", "rotate", "flip", "swap", "shuffle", "repeat", "skip", "fast", "rewind", "play", "pause", "stop", "record", "step", "cursor", "crop", "filter", "tag", "toggle", "checkbox", "radiobox", "bracket", "brackets", "code", "database", "server", "sign", "currency", "up", "down", "left", "right", "dot", "ellipsis", "grip", "number", "pan", "gesture", "cellphone", "debug", "equal", "greater", "less", "plus", "minus", "percent", "decimal", "fraction", "superscript", "subscript", "wifi", "bluetooth", "signal", "network", "gender", "sigma", "unfold", "undo", "redo", "rhombus", "sd-card", "simple-icons", "table", "tab", "tabs", "tooltip", "volume", "wan", "video-input", "zodiac", "fit", "upload", "download", "export", "import", "share", "login", "logout", "link", "copy", "paste", "content", "save", "clipboard", "playlist", "progress", "message", "chat", "comment", "forum", "reply", "send", "post", "card", "cards", "comments", "bubble", "variable", "tablet", "timeline", "relation", "relative", "link", "ray", "transit", "transition", "check", "checks", "xmark", "close", "cancel", "input", "step", "stocking-off", "order", "location", "map-marker", "crosshairs", "crosshair", "quote", "quotes", "paragraph", "row", "rows", "column", "columns", "grid", "heading", "indent", "italic", "bold", "underline", "strikethrough", "window", "windows", "fullscreen", "screenshot", "screencast", "sim", "network-strength", "lan", "ip", "ethernet", "wave", "sine", "square-wave", "infinity", "and", "or", "pound", "hashtag", "asterisk", "percentage", "hand-point", "hand-pointing", "face", "emoticon", "smiley", "emotion", "sticker", "artboard", "collage", "blur", "brightness", "contrast", "exposure", "gradient", "opacity", "hd", "4k", "3d", "2d", "hdr", "mv", "movie-open", "format-list", "reorder", "dashboard", "app", "apps", "application", "browser", "backspace", "return", "subtitles", "closed", "closed-captioning", "translate", "language", "alphabetical", "alphabet", "a", "z", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "y", "x", "male", "female", "man", "woman", "human", "person", "people", "child", "gauge", "speedometer", "loader", "spinner", "loading", "ab", "braille", "signature", "approximately", "not-equal", "divide", "division", "multiplication", "slash-forward", "xml", "cast", "airplay", "notdef", "transfer", "thumbtack", "activity", "api", "arrange", "aspect-ratio", "auto-fix", "auto-mode", "autorenew", "backup-restore", "cached", "collapse-all", "expand-all", "compare", "consolidate", "contain", "current-ac", "current-dc", "distribute", "dock-bottom", "dock-top", "drag", "draw", "drawing", "equals", "eject", "exclamation", "focus", "find-replace", "form-dropdown", "form-textarea", "form-textbox", "forward", "forwardburger", "backburger", "backward", "gate-buffer", "hash", "help", "image", "images", "image-frame", "image-move", "import-export", "info", "information", "invert-colors", "lines-leaning", "line-segment", "line-segments", "maximize", "minimize", "more", "music-accidental", "near-me", "new-box", "null", "omega", "om", "pi", "pi-box", "ph", "push", "question", "queue", "radical", "rss", "slash", "sliders", "stack", "squares-four", "circles-four", "circles-three", "command", "corners-in", "corners-out", "bounding-box", "picture-in-picture", "add", "add-box", "admin", "advertisement", "advertisements", "braces", "barcode-box", "celsius", "fahrenheit", "refresh", "restart", "separator", "reserved", "registered", "copyright", "copyleft", "trademark", "subtract", "hq", "more-2", "live", "numbers", "drag-drop", "drag-move", "edit", "edit-box", "function", "error-warning", "warning", "alert", "alert-box", "prohibit", "forbid", "splotch", "shapes", "section", "object-ungroup", "clone", "retweet", "identifier", "label", "latitude", "longitude", "hexadecimal", "ideogram-cjk", "case-sensitive", "gamma", "beta", "delta", "epsilon", "lambda", "comma", "comma-box", "exponent", "exponent-box", "perspective", "perspective-more", "vector-square", "point", "zoom", "magnify-plus", "magnify-minus", "power", "settings", "adjust", "component", "components", "placeholder", "polygon", "polyline"]
)  # fmt: skip
_BRANDS = set(
    ["logo", "android", "apple", "google", "microsoft", "facebook", "twitter", "amazon", "github", "gitlab", "linkedin", "youtube", "netflix", "spotify", "windows-logo", "adobe", "adobe", "aws", "azure", "angular", "angularjs", "ansible", "atlassian", "bitbucket", "bitcoin", "btc", "ethereum", "litecoin", "bulma", "centos", "codepen", "debian", "docker", "dropbox", "drupal", "edge", "electron-framework", "emby", "evernote", "facebook", "fedora", "firebase", "firefox", "font-awesome", "git", "google-plus", "gatsby", "gentoo", "hulu", "instagram", "ios", "java", "javascript", "jira", "jquery", "jsfiddle", "kodi", "kubernetes", "laravel", "lastpass", "linux", "mastodon", "material", "mdi", "messenger", "meteor-js", "minecraft", "nintendo", "npm", "npmjs", "nuxt", "odnoklassniki", "onepassword", "opera", "origin", "owncloud", "pandora", "patreon", "phosphor", "pinterest", "playstation", "plex", "podcast", "polymer", "product-hunt", "qqchat", "quora", "qualcomm", "raspberry", "react", "reactjs", "reddit", "roku", "rollupjs", "ruby", "rust", "safari", "salesforce", "sass", "signal", "skype", "slack", "snapchat", "sony", "soundcloud", "spotify", "stack-overflow", "stackoverflow", "steam", "svelte", "telegram", "terraform", "toslink", "trello", "tumblr", "twitch", "typescript", "ubisoft", "ubuntu", "umbraco", "unity", "unreal", "unsplash", "untappd", "vimeo", "vlc", "vuetify", "vuejs", "vue", "waze", "webpack", "wechat", "weibo", "whatsapp", "wikipedia", "wordpress", "xamarin", "xbox", "xing", "yahoo", "yammer", "y-combinator", "zhihu", "alipay", "baidu", "behance", "bilibili", "chrome", "coreos", "creative", "creative-commons", "css3", "language-css", "dingding", "discord", "disqus", "douban", "dribbble", "finder", "flutter", "honor", "html5", "ie", "invision", "kakao", "line-chart", "mastercard", "medium", "mickey", "netease", "paypal", "pixelfed", "qq", "remixicon", "slice", "stackshare", "taobao", "tiktok", "visa", "vscode", "wubi", "zcool", "wubi-input", "dev-to", "digital-ocean", "apache", "apache-kafka", "bash", "black-mesa", "cryengine", "deviantart", "dlna", "eslint", "freebsd", "gog", "goodreads", "hubspot", "hololens", "iobroker", "ipod", "kickstarter", "klingon", "lumx", "mapbox", "nativescript", "nfc", "openid", "oci", "ocr", "nas", "nuke", "pokeball", "deathly-hallows", "death-star", "pantone", "keynote", "mac", "sip", "hail", "hassio", "ansible", "arch", "artstation", "babel", "bootstrap", "graphql", "gmail", "gnome", "haskell", "humble", "inkscape", "jabber", "jsfiddle", "label-percent", "lastpass", "manjaro", "microsoft", "nodejs", "opensource", "redhat", "rdio", "sketch-logo", "sonos", "strava", "syllabary", "tailwind", "trello", "wii", "nix", "sitecore", "solidity", "tesla", "uber", "graphcool", "hass", "semantic-web", "home-assistant", "zigbee", "z-wave", "zend", "matrix", "cordova", "jedi", "jira", "dolby", "mixcloud", "framer", "figma", "stripe", "finn", "the-human", "ny-times", "gopuram", "web-awesome", "democrat", "republican"]
)  # fmt: skip


@dataclass(frozen=True)
class IconClass:
    """One class of `Icons`.

    Attributes:
        name: words for prompts, e.g. "light bulb".
        icons: family → base name of the icon → phrase for captions; empty where the family draws no such thing.
        words: words that mean this class or a thing easily taken for it.
    """

    name: str
    icons: dict[str, dict[str, str]]
    words: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Give the name of the class's folder."""
        return self.name.replace(" ", "_")

    def drawings(self, family: str) -> list[Icon]:
        """List the class's icons in `family`: one cut of every icon first, then the next cut of every icon."""
        found = [cuts(family, base) for base in self.icons[family]]
        deepest = max((len(each) for each in found), default=0)
        return [each[depth] for depth in range(deepest) for each in found if depth < len(each)]


def read_classes() -> tuple[IconClass, ...]:
    """Read the class table, in the order of the labels."""
    text = (_paths.plugin_folder("datasets") / "icons_classes.json").read_text(encoding="utf-8")
    families = tuple(DOMAINS.values())
    return tuple(
        IconClass(name, {family: entry[family] for family in families}, tuple(entry["words"].split()))
        for name, entry in json.loads(text).items()
    )


def caption(domain: str, adjective: str, phrase: str, rng: np.random.Generator) -> str:
    """Word what a picture shows: manner of drawing, cut of the icon, thing ("a chalk drawing of an outlined bell")."""
    template = _CAPTIONS[domain][int(rng.integers(len(_CAPTIONS[domain])))]
    return template.format(_with_article(f"{adjective} {phrase}".strip()))


def phrase_of(name: str) -> str:
    """Make words of an icon's name: fillers and numbers go, adjectives come first ("door-open" → "open door")."""
    tokens = name.split("-")
    words = [token for token in tokens if token not in _FILLER and not re.fullmatch(r"\d+\w?", token)] or tokens
    first = [word for word in words if word in _ADJECTIVES]
    rest = [word for word in words if word not in _ADJECTIVES]
    return " ".join(word.upper() if word in _LETTERS else word for word in (first + rest if rest else words))


def pool_icons() -> list[Icon]:
    """List the icons of the anchor pool: things that belong to no class of `Icons`, by family and name.

    Left out are icons whose name has a word of a class, arrows, letters, signs, brands, people's marks, and variants of an
    icon that is listed already (badges such as "-plus", outlines).
    """
    taboo = {word for each in read_classes() for word in (*each.name.split(), *each.words)}
    return [icon for font in FONTS for icon in _candidates(font) if _is_thing(icon.base, taboo)]


def _candidates(font: str) -> list[Icon]:
    """List one cut of every icon of `font`: its first (see `bench.icon_fonts.FONTS`)."""
    listed = charmap(font)
    (suffix, adjective), *others = FONTS[font].cuts
    further = tuple(cut for cut, _ in others)
    bases = [name.removesuffix(suffix) for name in sorted(listed) if name.endswith(suffix)]
    if not suffix and further:
        bases = [base for base in bases if not base.endswith(further)]
    return [Icon(font, base + suffix, base, adjective, listed[base + suffix]) for base in bases]


def _is_thing(base: str, taboo: set[str]) -> bool:
    tokens = base.split("-")
    if any(token.isdigit() for token in tokens[:1]) or any(re.search(r"\d{2}", token) for token in tokens):
        return False
    if tokens[0] in _ABSTRACT or any(token in _BRANDS for token in tokens) or base in _BRANDS:
        return False
    if any(token in _BADGES or token in _ABSTRACT for token in tokens[1:]):
        return False
    return not names_class(base, taboo)


def names_class(base: str, taboo: set[str]) -> bool:
    """Tell whether the icon name `base` has a word of `taboo`: as a whole word, a plural, or, if four letters long, inside."""
    tokens = base.split("-")
    return any(
        word in tokens or f"{word}s" in tokens or (len(word) >= 4 and word in base) or ("-" in word and word in base)
        for word in taboo
    )


def _with_article(phrase: str) -> str:
    last = phrase.split(" with ")[0].split(" of ")[0].split(" on ")[0].split()[-1]
    if phrase.endswith("scissors cutting") or (last.endswith("s") and not last.endswith(("ss", "us", "is", "as"))):
        return phrase
    vowel = phrase[0].lower() in "aeiou" and not phrase.lower().startswith(("uni", "us", "ufo", "one", "eu"))
    return f"{'an' if vowel or phrase.startswith('hour') else 'a'} {phrase}"
