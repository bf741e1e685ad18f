"""What tests look at in the HTML of a report."""

from html.parser import HTMLParser


class Outline(HTMLParser):
    """The elements of a page in their order; its elements must close.

    Attributes:
        elements: Tag and attributes of each.
        text: All text, markup left out.
    """

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def find(self, tag):
        """Return the attributes of all elements of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]


def assert_self_contained(page):
    """A browser fetches nothing for the page and runs nothing in it, and its elements close."""
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in outline.elements}
    for _, attributes in outline.elements:
        assert not {"src", "href"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert page.replace("url(#", "").count("url(") == 0
    assert "@import" not in page
    policy = [item["content"] for item in outline.find("meta") if "http-equiv" in item]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
