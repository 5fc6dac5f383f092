"""``make plots``: draw the newest results, and write their tables into docs/comparison.md."""

from .drawings import PAGE, page, pictures

if __name__ == "__main__":
    for path, text in pictures():
        path.write_text(text, encoding="utf-8")
        print(path)
    PAGE.write_text(page(), encoding="utf-8")
