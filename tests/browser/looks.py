"""What a reader with weak eyes, or with none, makes of a part of a page."""

from typing import Any

from playwright.sync_api import Locator

READABLE = 4.5  # contrast of texts, by the Web Content Accessibility Guidelines (AA)

# A canvas knows every notation of colours, and lays half transparent ones over each other.
_CONTRAST = """
    const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const mixed = colors => {
        for (const color of ['white', ...colors]) {
            pen.fillStyle = color;
            pen.fillRect(0, 0, 1, 1);
        }
        return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = colors => {
        const [red, green, blue] = mixed(colors).map(part => part / 255)
            .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = element => {
        const colors = [];
        for (let each = element; each; each = each.parentElement ?? each.getRootNode().host)
            colors.unshift(getComputedStyle(each).backgroundColor);
        return colors;
    };
    const contrast = (element, color) => {
        const ground = behind(element);
        const [dark, light] = [luminance(ground), luminance([...ground, color])]
            .sort((one, other) => one - other);
        return (light + 0.05) / (dark + 0.05);
    };
"""
_TEXTS = f"""root => {{
    {_CONTRAST}
    const found = [];
    for (const element of root.querySelectorAll('*')) {{
        const own = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
        const text = own.map(node => node.data.trim()).join(' ').trim();
        if (text && element.checkVisibility() && !element.closest(':disabled'))
            found.push([text, contrast(element, getComputedStyle(element).color)]);
    }}
    return found;
}}"""
_CHART_TEXTS = f"""root => {{
    {_CONTRAST}
    const found = [];
    for (const document of window.Bokeh?.documents ?? [])
        for (const model of document._all_models.values())
            for (const name of ['text_color', 'major_label_text_color', 'axis_label_text_color'])
                if (/Title$|Axis$/.test(model.type) && model[name])
                    found.push([`${{model.type}} ${{name}}`, contrast(root, model[name])]);
    return found;
}}"""


def contrasts(part: Locator) -> dict[str, float]:
    """Answer for each visible text how much it differs from what is behind it, from 1 to 21."""
    found: list[tuple[str, float]] = part.evaluate(_TEXTS)
    return dict(found)


def chart_contrasts(part: Locator) -> dict[str, float]:
    """Answer the same for what Bokeh writes on its canvas, there and nowhere else in the page."""
    found: list[tuple[str, float]] = part.evaluate(_CHART_TEXTS)
    return dict(found)


def focused(part: Locator) -> Any:
    """Answer the name of what has the focus, if it is within this part."""
    return part.evaluate(
        """root => {
            const element = document.activeElement;
            if (!root.contains(element)) return null;
            return element.getAttribute('aria-label') ?? element.textContent.trim();
        }"""
    )
