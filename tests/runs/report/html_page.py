"""What a browser and a screen reader find on a page, by the standard library's parser."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "path", "use", "rect", "image", "hr", "input"}


class Page(HTMLParser):
    """Elements with their attributes, text and ancestors."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.badly_nested = [], [], []
        self.feed(text)
        self.close()
        self.badly_nested += [e["tag"] for e in self.open]

    def handle_starttag(self, tag, attributes):
        element = {
            "tag": tag,
            "text": "",
            "inside": [e["tag"] for e in self.open],
            "parents": list(self.open),
            **dict(attributes),
        }
        self.elements.append(element)
        if tag not in VOID or (
            not self.get_starttag_text().endswith("/>") and tag not in ("meta", "link", "br", "img")
        ):
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append(
            {
                "tag": tag,
                "text": "",
                "inside": [e["tag"] for e in self.open],
                "parents": list(self.open),
                **dict(attributes),
            }
        )

    def handle_endtag(self, tag):
        if not self.open or self.open[-1]["tag"] != tag:
            self.badly_nested.append(tag)
        else:
            self.open.pop()

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag, **attributes):
        return [e for e in self.elements if e["tag"] == tag and all(e.get(k) == v for k, v in attributes.items())]

    def section(self, title):
        """The text of a section, spaces made one."""
        heading = next(e for e in self.all("h2") if e["text"] == title)
        return " ".join(heading["parents"][-1]["text"].split())

    def table(self, caption):
        """Rows of cells, the header first, of the table whose caption begins so."""
        table = next(e["parents"][-1] for e in self.all("caption") if e["text"].startswith(caption))
        rows = [e for e in self.all("tr") if any(p is table for p in e["parents"])]
        cells = [e for e in self.elements if e["tag"] in ("th", "td")]
        return [[c["text"] for c in cells if c["parents"][-1] is row] for row in rows]
