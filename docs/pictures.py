"""Draw the views of a report as a browser shows them, light and dark, for the documentation.

    python docs/pictures.py RUN FOLDER [PART ...]       # needs Chromium; without parts: all that the report has

A picture is one part of the page without the others, in a window as high as that part; `hunks` is the first attempt
whose hunks `regrade explain --hunks` told apart.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HIGHEST = 1100, 1500
"""Of a window; what of a part is below is cut off."""
PHONE = 500, 950
"""Chromium makes no window narrower."""
SCHEMES = {"": 1, "-dark": 0}
"""What a file's name ends in -> Chromium's number of the colour scheme."""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000")

ALONE = """
const part = document.getElementById("PART") ?? document.querySelector("main");
const hide = (what) => document.querySelectorAll(what).forEach((each) => { each.hidden = each !== part; });
hide(part.id === "result" ? "main > section, footer" : "main > section, footer, header, nav");
if ("PART" === "hunks") {  // the first attempt whose hunks were told apart
  const fold = document.querySelector(".hunks");
  fold.open = true;
  part.replaceChildren(fold.closest(".attempt"));
}
if (part.id === "tasks") {  // as somebody finds them who asks which fixes broke something, and opens one
  showAll();
  outcome.value = "fix with breakage"; outcome.dispatchEvent(new Event("input"));
  if (tasks.every((task) => task.hidden)) showAll();
  tasks.find((task) => !task.hidden).open = true;
}
const height = document.createElement("meta");
height.name = "height-of-part";
height.content = String(Math.ceil(part.getBoundingClientRect().bottom + 16));
document.head.append(height);
"""


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or len(sys.argv) < 3:
        raise SystemExit(__doc__)
    run, out = map(Path, sys.argv[1:3])
    page = (run / "report.html").read_text(encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    for part in sys.argv[3:] or [*re.findall(r'<section[^>]* id="(\w+)"', page), "phone"]:
        alone = page if part == "phone" else page.replace("</script>", ALONE.replace("PART", part) + "</script>")
        for end, scheme in SCHEMES.items():
            draw(chromium, alone, out / f"{part}{end}.webp", scheme, PHONE if part == "phone" else None)


def draw(chromium: str, page: str, picture: Path, scheme: int, size: tuple[int, int] | None) -> None:
    """`size`: of the window; None: as high as the page says that its part is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.html")
        file.write_text(page, encoding="utf-8")
        flags = (*FLAGS, f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={scheme}")
        if size is None:
            dom = output([chromium, *flags, f"--window-size={WIDTH},{HIGHEST}", "--dump-dom", file.as_uri()])
            found = re.search(r'<meta name="height-of-part" content="(\d+)"', dom)
            assert found, "the page's script did not run to its end"
            size = WIDTH, min(int(found[1]), HIGHEST)
        window = f"--window-size={size[0]},{size[1]}"
        output([chromium, *flags, window, f"--screenshot={folder}/shot.png", file.as_uri()])
        Image.open(Path(folder, "shot.png")).convert("RGB").save(picture, quality=85, method=6)
    print(f"{picture}: {size[0]} x {size[1]}, {picture.stat().st_size // 1024} KB")


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


if __name__ == "__main__":
    main()
