"""coco_names: what do the 91 labels of a published detector mean?

COCO numbers its 80 classes from 1 to 90 and leaves ten numbers out. The published detectors take
the number itself as the label, so that 11 of their 91 rows, those ten and 0, are no class.
Held against COCO's own annotations in tests/test_detector.py.
"""

from __future__ import annotations

_NAMES = """
-, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat,
traffic light, fire hydrant, -, stop sign, parking meter, bench, bird, cat, dog, horse,
sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -,
-, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife,
spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza,
donut, cake, chair, couch, potted plant, bed, -, dining table, -, -,
toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven,
toaster, sink, refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush
"""
# 91 names by category id; "-" where there is no class
COCO_NAMES: tuple[str, ...] = tuple(name.strip() for name in _NAMES.split(","))
