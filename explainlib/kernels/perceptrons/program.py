"""Small perceptrons in Triton: one program owns one network and trains it from start to end in one launch.

Batched training launches some twenty kernels an epoch and moves every network's weights, gradients and optimiser state
through memory at each of them. Here they stay where they are computed. A program keeps, in registers,

    W_k [in, out], b_k [out], their gradients, and Adam's two moments,

padded to powers of two with zeros that remain zeros. Each step reads its examples in blocks, goes forwards and
backwards through them, and only the parameters after the last step are written. Sums run in a fixed order and nothing
is added atomically: the result is the same, bit for bit, in every run on one kind of GPU, whatever the other networks.

The inputs of the first layer come in chunks of at most 16 numbers (W_0 is a tuple of chunks), because a thread holds
its part of both factors of a product. Products over fewer than 16 numbers are sums written out, others ``tl.dot``.
"""

from __future__ import annotations

from typing import no_type_check

from explainlib.kernels.gram_triton import jit, tl


@jit
@no_type_check
def _product(x, w):
    """Return x [rows, k] times w [k, columns]."""
    if x.shape[1] >= 16 and x.shape[0] >= 16 and w.shape[1] >= 16:
        return tl.dot(x, w, input_precision="ieee", out_dtype=x.dtype)
    return tl.sum(x[:, :, None] * w[None, :, :], 1)


@jit
@no_type_check
def _load_layers(source, WIDTHS: tl.constexpr, PADDED: tl.constexpr, CHUNKS: tl.constexpr):
    """Return the parameters of one network: chunks of W_0, W_1 ..., b_0, b_1 ...; padded with zeros."""
    weights, biases = (), ()
    for k in tl.static_range(len(WIDTHS) - 1):
        column = tl.arange(0, PADDED[k + 1])
        for chunk in tl.static_range(CHUNKS if k == 0 else 1):
            row = chunk * PADDED[k] + tl.arange(0, PADDED[k])
            mask = (row < WIDTHS[k])[:, None] & (column < WIDTHS[k + 1])[None, :]
            at = column[None, :] * WIDTHS[k] + row[:, None]  # torch keeps [out, in]
            weights = weights + (tl.load(source + at, mask=mask, other=0.0),)
        source += WIDTHS[k] * WIDTHS[k + 1]
        biases = biases + (tl.load(source + column, mask=column < WIDTHS[k + 1], other=0.0),)
        source += WIDTHS[k + 1]
    return weights + biases


@jit
@no_type_check
def _store_layers(target, theta, WIDTHS: tl.constexpr, PADDED: tl.constexpr, CHUNKS: tl.constexpr):
    """Write what ``_load_layers`` reads."""
    for k in tl.static_range(len(WIDTHS) - 1):
        column = tl.arange(0, PADDED[k + 1])
        for chunk in tl.static_range(CHUNKS if k == 0 else 1):
            row = chunk * PADDED[k] + tl.arange(0, PADDED[k])
            mask = (row < WIDTHS[k])[:, None] & (column < WIDTHS[k + 1])[None, :]
            tl.store(
                target + column[None, :] * WIDTHS[k] + row[:, None],
                theta[chunk + (0 if k == 0 else CHUNKS + k - 1)],
                mask=mask,
            )
        target += WIDTHS[k] * WIDTHS[k + 1]
        tl.store(target + column, theta[CHUNKS + len(WIDTHS) - 2 + k], mask=column < WIDTHS[k + 1])
        target += WIDTHS[k + 1]


@jit
@no_type_check
def _activated(z, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ACTIVATION: tl.constexpr):
    """Return act(z); 0 in padded columns, also where act(0) is not 0."""
    if ACTIVATION == "relu":
        a = tl.where(z > 0, z, 0.0)
    elif ACTIVATION == "tanh":
        e = tl.exp(-2 * tl.abs(z))
        a = tl.where(z < 0, e - 1, 1 - e) / (1 + e)
    elif ACTIVATION == "sigmoid":
        e = tl.exp(-tl.abs(z))
        a = tl.where((tl.arange(0, COLUMNS) < WIDTH)[None, :], tl.where(z < 0, e, 1.0) / (1 + e), 0.0)
    else:
        tl.static_assert(ACTIVATION == "selu")
        a = 1.0507009873554804934193349852946 * tl.where(
            z > 0, z, 1.6732632423543772848170429916717 * (tl.exp(tl.minimum(z, 0.0)) - 1)
        )
    return a


@jit
@no_type_check
def _activated_back(g, a, ACTIVATION: tl.constexpr):
    """Return g act'(z), from a = act(z)."""
    if ACTIVATION == "relu":
        slope = tl.where(a > 0, 1.0, 0.0)
    elif ACTIVATION == "tanh":
        slope = 1 - a * a
    elif ACTIVATION == "sigmoid":
        slope = a * (1 - a)
    else:
        slope = tl.where(a > 0, 1.0507009873554804934193349852946, a + 1.7580993408473768599402175208123)
    return g * slope


@jit
@no_type_check
def _block_gradient(
    theta, slopes, value, inputs, wanted, share,
    WIDTHS: tl.constexpr, PADDED: tl.constexpr, CHUNKS: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the weighted loss of one block of examples to ``value``, its gradient to ``slopes``; return both."""
    LAST: tl.constexpr = len(WIDTHS) - 2  # the number of the last layer
    BIASES: tl.constexpr = CHUNKS + LAST  # where they begin
    CLASSES: tl.constexpr = PADDED[LAST + 1]
    z = _product(inputs[0], theta[0])
    for chunk in tl.static_range(1, CHUNKS):
        z += _product(inputs[chunk], theta[chunk])
    z += theta[BIASES][None, :]
    activations = ()
    for k in tl.static_range(1, LAST + 1):
        a = _activated(z, WIDTHS[k], PADDED[k], ACTIVATION)
        activations = activations + (a,)
        z = _product(a, theta[CHUNKS + k - 1]) + theta[BIASES + k][None, :]
    column = tl.arange(0, CLASSES)[None, :]
    z = tl.where(column < WIDTHS[LAST + 1], z, float("-inf"))
    highest = tl.max(z, 1)
    e = tl.exp(z - highest[:, None])
    total = tl.sum(e, 1)
    chosen = column == wanted[:, None]
    loss = tl.log(total) + highest - tl.sum(tl.where(chosen, z, 0.0), 1)
    value += tl.sum(tl.where(share != 0, share * loss, 0.0), 0)
    back = (e / total[:, None] - tl.where(chosen, 1.0, 0.0)) * share[:, None]
    weights, biases = (), (slopes[BIASES + LAST] + tl.sum(back, 0),)
    for up in tl.static_range(LAST):
        a, w = activations[LAST - up - 1], theta[CHUNKS + LAST - up - 1]
        weights = (slopes[CHUNKS + LAST - up - 1] + _product(tl.trans(a), back),) + weights
        back = _activated_back(_product(back, tl.trans(w)), a, ACTIVATION)
        biases = (slopes[BIASES + LAST - up - 1] + tl.sum(back, 0),) + biases
    first = ()
    for chunk in tl.static_range(CHUNKS):
        first = first + (slopes[chunk] + _product(tl.trans(inputs[chunk]), back),)
    return first + weights + biases, value


@jit
@no_type_check
def _gradient(
    theta, value, x, y, weights, batch, size,
    WIDTHS: tl.constexpr, PADDED: tl.constexpr, CHUNKS: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
    GIVEN: tl.constexpr,
):  # fmt: skip
    """Return 1/size sum_i w_i l_i over the examples of one batch, added to ``value``, and its gradient."""
    slopes = ()
    for k in tl.static_range(len(theta)):
        slopes = slopes + (tl.zeros_like(theta[k]),)
    for first in range(0, size, BLOCK):
        example = first + tl.arange(0, BLOCK)
        inside = example < size
        if GIVEN:
            example = tl.load(batch + example, mask=inside, other=0)
        share = tl.load(weights + example, mask=inside, other=0.0) / size
        wanted = tl.load(y + example, mask=inside, other=0)
        inputs = ()
        for chunk in tl.static_range(CHUNKS):
            column = chunk * PADDED[0] + tl.arange(0, PADDED[0])
            mask = inside[:, None] & (column < WIDTHS[0])[None, :]
            at = example[:, None] * WIDTHS[0] + column[None, :]
            inputs = inputs + (tl.load(x + at, mask=mask, other=0.0),)
        slopes, value = _block_gradient(
            theta, slopes, value, inputs, wanted, share, WIDTHS, PADDED, CHUNKS, ACTIVATION, BLOCK
        )
    return slopes, value


@jit
@no_type_check
def _plateau(value, rate, best, idle, factor, patience, threshold, least):
    """Return rate, best and idle after an epoch that ended at ``value``, as ``training.Plateau`` does."""
    better = value < best * (1 - threshold)
    best = tl.where(better, value, best)
    idle = tl.where(better, 0.0, idle + 1)
    exhausted = idle > patience
    lower = tl.maximum(rate * factor, least)
    rate = tl.where(exhausted & (rate - lower > 1e-8), lower, rate)
    return rate, best, tl.where(exhausted, 0.0, idle)


@jit
@no_type_check
def _train(
    x, y, weights, starts, batches, options, unbiased, out, n, size, count, steps,
    WIDTHS: tl.constexpr, PADDED: tl.constexpr, CHUNKS: tl.constexpr, NUMBERS: tl.constexpr, BLOCK: tl.constexpr,
    ACTIVATION: tl.constexpr, ADAM: tl.constexpr, PLATEAU: tl.constexpr, GIVEN: tl.constexpr,
):  # fmt: skip
    """Train network ``program_id(0)`` for all its steps and write its parameters."""
    network = tl.program_id(0).to(tl.int64)
    theta = _load_layers(starts + network * NUMBERS, WIDTHS, PADDED, CHUNKS)
    means, squares = (), ()
    if ADAM:
        for k in tl.static_range(len(theta)):
            means, squares = means + (tl.zeros_like(theta[k]),), squares + (tl.zeros_like(theta[k]),)
    rate, l2 = tl.load(options), tl.load(options + 1)
    factor, patience = tl.load(options + 2), tl.load(options + 3)
    threshold, least = tl.load(options + 4), tl.load(options + 5)
    nothing = rate * 0
    best, idle = nothing + float("inf"), nothing
    for step in range(steps):
        batch = batches + (step % count) * size
        slopes, value = _gradient(theta, nothing, x, y, weights + network * n, batch, size,
                                  WIDTHS, PADDED, CHUNKS, ACTIVATION, BLOCK, GIVEN)  # fmt: skip
        if PLATEAU:
            for k in tl.static_range(len(theta)):
                value += l2 / 2 * tl.sum(theta[k] * theta[k])
            if step > 0:
                rate, best, idle = _plateau(value, rate, best, idle, factor, patience, threshold, least)
        unbias1, root2 = nothing, nothing
        if ADAM:
            unbias1, root2 = tl.load(unbiased + 2 * step), tl.load(unbiased + 2 * step + 1)
        new, new_means, new_squares = (), (), ()
        for k in tl.static_range(len(theta)):
            slope = slopes[k] + l2 * theta[k]
            if ADAM:  # Kingma & Ba 2015, algorithm 1, in the order of operations of torch.optim.Adam
                mean = means[k] + (1 - 0.9) * (slope - means[k])
                square = 0.999 * squares[k] + (1 - 0.999) * slope * slope
                new_means, new_squares = new_means + (mean,), new_squares + (square,)
                slope = mean / unbias1 / (tl.sqrt(square) / root2 + 1e-8)
            new = new + (theta[k] - rate * slope,)
        theta, means, squares = new, new_means, new_squares
    _store_layers(out + network * NUMBERS, theta, WIDTHS, PADDED, CHUNKS)
