"""The rules of axe-core on a page that is open.

``axe/axe.min.js`` is axe-core 4.14.1 as it is published on npm (MPL-2.0), for the tests alone.
"""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
FIND = """
const done = arguments[0];
axe.run(document, {rules: {'target-size': {enabled: true}}, resultTypes: ['violations']}).then((found) => done(
  found.violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target.join(' ')}`))));
"""
"""Violations of all rules, also of that for targets of 24 pixels, which axe-core leaves out by itself."""


def found(page: Chrome) -> list[str]:
    page.set_script_timeout(120)
    violations: list[str] = page.execute_async_script(FIND)
    return violations


def opened(page: Chrome, address: str, theme: str) -> None:
    page.get("about:blank")
    page.get(address)
    page.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
    page.execute_script(AXE)
    page.execute_script("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
