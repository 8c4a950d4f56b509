"""play: pages to play with. Each has a small script; scratch/ computes its numbers, or tests hold it against scratch/.

    NAME.py     the widget: text, and the data that scratch/ computes      NAME.html   its elements
    NAME.js     the script                                                 kit.js, play.css   what all of them share

Look at one: `python -m docs.site.play.page OUT` writes each as a page of its own. Proven in tests/site/test_play.py.
"""

from __future__ import annotations

from docs.site.play.boxes import BOXES
from docs.site.play.encoding import ENCODING
from docs.site.play.hungarian import HUNGARIAN
from docs.site.play.looking import ATTENTION
from docs.site.play.softmax import SOFTMAX
from docs.site.play.trace import TRACE
from docs.site.play.widget import Widget
from docs.site.play.window import WINDOW

WIDGETS: list[Widget] = [WINDOW, SOFTMAX, ENCODING, BOXES, HUNGARIAN, TRACE, ATTENTION]
