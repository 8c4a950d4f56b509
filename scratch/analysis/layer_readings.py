"""layer_readings: what does each layer chart show, and what does a healthy one look like?

The sentences of index.md: rules of thumb for the first batches of a detector that begins at random
weights, not laws. A chart that breaks one is worth a second look.
"""

from __future__ import annotations

import re

# The charts over the batches, by name.
OVER_BATCHES = {
    "overview":
        "All of it on one sheet. Above, what the loss is made of, the gradient's length and the learning rates. "
        "Below, each row is a group of layers (the median of its layers), each column a batch; grey: nothing to "
        "measure. Healthy: rows that keep their colour or change it slowly. A row far darker than its neighbours is "
        "not reached; a column in which all change at once was too large a step.",
    "loss_parts":
        "Left, the weighted parts stacked up to the loss: what is thickest has most of the gradient. Right, each part "
        "by decoder layer, unweighted. Healthy: all parts fall together. A class loss that stays while the boxes fall "
        "says that the boxes have the gradient.",
    "gradient_clipping":
        "The gradient's length before it is cut, what the cut leaves, and the learning rates. Cutting a gradient of "
        "length 10 to 0.1 leaves 1 %: that is no guard against spikes any more, but divides every step by its own "
        "length. AdamW, which divides by the gradient's usual size in any case, hardly notices a factor that stays, "
        "unless it presses a layer's gradients down to its ε of 10⁻⁸: that layer's steps then shrink, and the chart of "
        "updates shows it. Plain gradient descent would take steps a hundred times as short. Healthy: a length that "
        "falls or stays; one that rises under a falling loss is an early sign of too high a learning rate.",
    "update_to_weight":
        "How far one step moves the weights, relative to them: ‖Δw‖ / ‖w‖. The dotted line is 10⁻³, which Stanford's "
        "course notes CS231n (\"Ratio of weights:updates\") call about right. Far below, learning is slow; far "
        "above, a few steps undo what was learnt, and this chart shows it before the loss does. During a warm-up the "
        "lines rise with the rate. Weights that began at or near 0 lie above the line until they have grown.",
    "std_gradients":
        "How strongly each layer is pulled, before clipping, on one scale for all. Compare layers of one group, which "
        "are of one shape: healthy ones lie within a power of ten or two. Lines that sink from layer to layer are a "
        "gradient that vanishes on its way, lines that climb from batch to batch one that explodes.",
    "std_activations":
        "How widely the numbers are spread that leave each layer. Healthy: flat lines between 0.1 and 10. A group that "
        "grows with the batches is on its way to overflow in fp16 and to saturated softmaxes; one that falls to 0 is "
        "dying.",
    "mean_abs_activations":
        "The mean size of the numbers that leave each layer. Beside the standard deviation it tells a shift from a "
        "spread: a mean that grows while the spread stays is a bias that runs away.",
    "saturation":
        "The share of activations at which a slope is 0 or next to it: zeros of a relu, sigmoids and box coordinates "
        "within 0.01 of 0 or 1, rows of attention and classes with a probability above 0.9. Healthy: about half of a "
        "relu's numbers, few of the others, and no jumps; near 100 % a layer is dead. (A focal class head begins at a "
        "probability of 0.01 on purpose, so about half of its scores count as saturated at first.)",
    "std_weights":
        "How widely the weights are spread. Healthy: lines that hardly move within so few batches. One that doubles "
        "has too high a rate.",
    "attention_entropy":
        "Each row of a map is a head, each column a batch; above it the layer's mean, first → last batch. 1 looks at "
        "every key alike, 0 at one alone. Healthy: near 1 at the start, then a slow fall that differs from head to "
        "head. All near 0 have collapsed: there a softmax has no slope left to learn by. \"undivided\": the entropy "
        "that the first batch's queries and keys would have, were their scores not divided by √d, the square root of "
        "how many products a score adds up (scratch/ops/attention): the division makes them begin near 1. In DETR the "
        "decoder's first self-attention reads equal values, so its weights do not matter.",
}

_QUERY_KEY = (
    "How {whose} projects its tokens to {roles}. Healthy: activations with a spread near 1 or below, alike in all "
    "layers, and few sure rows. Queries and keys that grow together drive the softmax into saturation, where hardly a "
    "gradient comes back.")
_PLACE = (
    "How {whose} turns places into {roles}. The weights begin as a permutation, zeros and a few ones, so that near "
    "places attend to each other from the first step. Healthy: they move slowly away from it.")
_VALUE = (
    "What {whose} passes on: the tokens that its weights average. Healthy: layers that lie on each other, and "
    "gradients larger than those of queries and keys, which are reached through the softmax alone.")
_OUTPUT = (
    "The map that mixes what the heads of {whose} found, before it is added to the tokens. Healthy: a spread below "
    "that of the tokens, which is 1, so that a layer corrects and does not replace.")
# The pages of distributions: the first pattern that fits has the name.
PAGES = (
    (r"backbone$",
     "The parts of the ResNet, and the spread along its blocks. Each block adds to what it is given: along a stage the "
     "activations grow, and a block changes them ever less (De & Smith 2020, arXiv 2002.10444). The gradient comes "
     "back along the same path, past the convolutions: it does not fade on its way to the stem but grows. That is why "
     "a backbone learns from the first batch on. Healthy: gradients that grow by a power of ten or two on the way; "
     "a thousandfold growth is an explosion: then the first blocks are nearly all of the gradient's length, and a cut "
     "to a fixed length leaves next to nothing to the others. A third to a half of the activations zero; weights that "
     "keep their shape."),
    (r"input_proj$",
     "The 1×1 convolution from the backbone's channels to the transformer's width. Healthy: activations of about the "
     "size of the sine encoding that they meet next, which lies between −1 and 1; much larger ones drown the places."),
    (r"(?P<whose>.+)_(?P<roles>query|key)_place$", _PLACE),
    (r"(?P<whose>.+)_(?P<roles>query|key)$", _QUERY_KEY),
    (r"(?P<whose>.+_attention)_value$", _VALUE),
    (r"(?P<whose>.+_attention)_output$", _OUTPUT),
    (r".+_feed_forward$",
     "The two maps of the feed-forward block; the relu between them sets the negative numbers of the first one to 0. "
     "Healthy: about half of them; all would be a dead layer."),
    (r".+_norm$",
     "The scales of the layer norms, which begin at 1 (the grey line), and the tokens that leave each layer, whose "
     "spread a norm keeps at about 1. Healthy: scales that spread slowly around 1."),
    (r"decoder_place$",
     "The small networks that turn an anchor into a positional query, and weight the frequencies of its sine encoding. "
      "Healthy: a gradient in all of them."),
    (r"fine_memory$",
     "The 1×1 convolution that brings a finer stage's edges to the decoder. Healthy: activations of the size of the "
     "memory that they are added to, which is about 1."),
    (r"roi_features$",
     "What is read of the memory around each box, and what one linear layer makes of it for the box head. It has no "
     "gradient in the first batch, where the box head's last layer is 0. Healthy: numbers above 0 that stay; all at 0 "
     "would be a dead layer."),
    (r"proposal_head$",
     "What every cell of the encoder is asked: class and box. The last box layer begins at 0, so the first answer "
     "is the cell itself and the layers before it have no gradient in the first batch. Healthy: class scores that "
     "leave −4.6, a probability of 0.01, on one side for cells with an object."),
    (r"query_embeddings$",
     "The learnt queries or anchors, which are used as they are. Healthy: a spread that stays; queries that move "
     "together become one."),
    (r"class_head$",
     "The scores of the classes. Healthy: a spread that grows slowly. In the first batches they shift as a whole, "
     "while the head learns how rarely a query has an object at all."),
    (r"fnn_bbox_mlp_layer3$",
     "The last layer of the box network, before the sigmoid. (For anchors it begins at 0: the first answer is the "
     "anchor itself.) Healthy: few box coordinates at 0 or 1, where the sigmoid has no slope to bring them back."),
    (r"fnn_bbox_mlp_layer\d$",
     "A hidden layer of the box network, before its relu. Healthy: about half of the numbers at 0 or below, and a "
     "gradient of about the size of the next layer's. (For anchors there is none in the first batch: the last layer "
     "begins at 0.)"),
)


def reading(name: str) -> str:
    """What to look for in a chart, by its name without version and batches. Raises ValueError for an unknown one."""
    if name in OVER_BATCHES:
        return OVER_BATCHES[name]
    for pattern, sentence in PAGES:
        match = re.match(pattern, name)
        if match:
            found = match.groupdict()
            roles = {"query": "queries", "key": "keys"}.get(found.get("roles", ""), "")
            return sentence.format(whose=f"the {found.get('whose', '').replace('_', ' ')}", roles=roles)
    raise ValueError(f"got the chart {name}, of which nothing is said; wanted one that this project draws: add a "
                     "sentence to scratch/analysis/layer_readings.py")
