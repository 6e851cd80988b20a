"""The claims of Epifano et al., Tsai et al. and Basu et al. on ordinary networks, with their rules and margins."""

from __future__ import annotations

from explainlib.studies.claims.claim import Claim, Rule

SHARE = {"lowest": -1.0, "highest": 1.0}
SMALL_RANK = 0.31  # Spearman of 40 removals is significant beyond it
TEN = "ours: a tenth of Spearman; the paper prints p > .5 and no size"

FRAGILITY = (
    Claim(
        "E1",
        "Fig 1",
        "neither depth nor width has a significant effect on Spearman on Iris",
        "Spearman at the largest size minus at the smallest, by kind and sweep",
        (Rule("absent effect", 0.1, TEN, lowest=-2.0, highest=2.0),),
    ),
    Claim(
        "E2",
        "Fig 1",
        "regularised models do better, Bayesian networks best",
        "Spearman of L2 minus plain, damping and truth equal; of Bayesian (the paper's cost) minus L2, both solved",
        (Rule("direction", lowest=-2.0, highest=2.0),),
    ),
    Claim(
        "E3",
        "Fig 1",
        "SWA helps without weight decay, not with it",
        "Spearman of the average minus its un-averaged twin of equal epochs, without a ridge; with one",
        (Rule("direction", lowest=-2.0, highest=2.0), Rule("absent effect", 0.1, TEN, lowest=-2.0, highest=2.0)),
    ),
    Claim(
        "E4",
        "Fig 3",
        "the top eigenvalue grows with width and depth, and does not explain the correlation",
        "log10 of the top eigenvalue at the largest size minus at the smallest; rank correlation of eigenvalue and "
        "Spearman within kind and shape",
        (Rule("direction"), Rule("absent effect", 0.3, "'little correlation', below .3 after Cohen", **SHARE)),
    ),
    Claim(
        "E5",
        "Fig 2",
        "on MNIST only the small fully connected network correlates",
        "Spearman of the small network; Spearman of LeNet",
        (
            Rule("direction", **SHARE),
            Rule("absent effect", SMALL_RANK, "the critical value of Spearman for the paper's 40 removals", **SHARE),
        ),
    ),
    Claim(
        "E6",
        "Fig 2",
        "Bayesian networks do not rescue larger data",
        "Spearman of the Bayesian network on MNIST",
        (Rule("absent effect", SMALL_RANK, "the critical value of Spearman for the paper's 40 removals", **SHARE),),
    ),
    Claim(
        "E7",
        "Fig 4",
        "one Spearman (about .85), two very different pictures",
        "range of R2 among a seed's networks whose Spearman is .80 to .90",
        (Rule("larger-than", 0.3, "ours, since the study's first run", lowest=0.0, highest=1.0),),
    ),
    Claim(
        "E8",
        "Fig 5",
        "retraining converges smoothly on Iris and jumps on MNIST",
        "share of epochs in which the loss turns round, MNIST minus Iris, by network",
        (Rule("direction", **SHARE),),
    ),
)

REPRESENTERS = (
    Claim(
        "P1",
        "Table 1, I",
        "tracking above target above surrogate importance",
        "AUC of tracking minus target, and of target minus surrogate",
        (Rule("direction", printed_effect=2.41 - 1.88),),
    ),
    Claim(
        "P2",
        "Table 1, I",
        "random selection is about 0",
        "AUC of random over that of tracking",
        (
            Rule(
                "absent effect", 0.14, "the largest printed ratio, -.50 over 3.52 on MNIST", printed_effect=0.136 / 3.26
            ),
        ),
    ),
    Claim(
        "P3",
        "Table 1, II",
        "the influence kernel is the best on images",
        "AUC of the influence kernel minus others",
        (Rule("largest-of", printed_effect=3.66 - 3.63),),
    ),
    Claim(
        "P4",
        "Table 1, II",
        "NTK-final is the best kernel on texts",
        "AUC of NTK-final minus others",
        (Rule("largest-of", printed_effect=2.56 - 2.54),),
    ),
    Claim(
        "P5",
        "Table 1, II",
        "the last layer falls behind NTK-final on texts",
        "AUC of NTK-final minus last layer",
        (Rule("direction", printed_effect=2.56 - 2.14),),
    ),
    Claim(
        "P6",
        "Table 1, II",
        "NTK-init is the worst kernel on CIFAR-10",
        "AUC of others minus NTK-init",
        (Rule("largest-of", printed_effect=2.26 - 1.35),),
    ),
    Claim(
        "P7",
        "Table 1, III",
        "TracInCP is the best method on MNIST",
        "AUC of TracInCP minus others",
        (Rule("largest-of", printed_effect=4.20 - 3.66),),
    ),
    Claim(
        "P8",
        "Table 1, III",
        "NTK- and influence-tracking above influence functions and representer points",
        "AUC of each of the two minus each of the others",
        (Rule("direction", printed_effect=3.52 - 2.56),),
    ),
    Claim(
        "P9",
        "Theorem 7",
        "representers alone satisfy five axioms, irreducibility included",
        "share of four measured axioms that a product of importance and kernel satisfies to 1e-6 (continuity is not "
        "measured)",
        (
            Rule(
                "count",
                1.0,
                "the theorem's 'satisfies'; the tolerance of 1 in 20 is ours",
                tolerance=0.05,
                lowest=0.0,
                highest=1.0,
            ),
        ),
    ),
)

GROUP = (
    Claim(
        "B1",
        "Fig 1",
        "second order stays on y = x up to 60% removed, first order does not",
        "slope of truth on second order within a test, the median over tests, by size; |slope - 1| of Koh's first "
        "order at 60%",
        (
            Rule("close-to", 0.1, "'fairly close to the ground truth', a slope within 10% as in metrics.fidelity", 1.0),
            Rule("larger-than", 0.1, "the same margin", lowest=0.0),
        ),
    ),
    Claim(
        "B2",
        "Fig 2 left",
        "random groups above 36%: gains of 40% and more",
        "relative gain of Pearson within a test, the median over tests, from Koh's first order to second order, at the "
        "ridge that serves the claim best",
        (Rule("larger-than", 0.4, printed_effect=0.55),),
    ),
    Claim(
        "B3",
        "Fig 2 right",
        "coherent groups: gains of at least 15% at every size",
        "relative gain of Pearson within a test, the median over tests, from Koh's first order to second order, at the "
        "ridge that serves the claim best",
        (Rule("larger-than", 0.15),),
    ),
    Claim(
        "B4",
        "Fig 2 left",
        "small random groups: a small gain",
        "the same gain up to 10% removed, at every ridge",
        (Rule("absent effect", 0.15, "what the paper calls a gain for coherent groups"),),
    ),
    Claim(
        "B5",
        "7.3.2",
        "in a network both underestimate, no significant correlation, second order marginally better",
        "slope of truth on prediction within a test, the median over tests and sizes, the less of both orders; Pearson "
        "of first order, likewise; second minus first; with the damping that the minimum needs",
        (
            Rule("larger-than", 1.0, "'underestimate'"),
            Rule("absent effect", 0.5, "ours: the critical value of Pearson for 16 groups", **SHARE),
            Rule("direction", lowest=-2.0, highest=2.0),
        ),
    ),
    Claim(
        "B6",
        "Fig 3",
        "optimised selection beats greedy first order at 10-30%, most at large sizes",
        "predicted influence of the relaxed choice over greedy's, minus 1, by size; the largest size's minus the "
        "smallest's",
        (Rule("direction"),),
    ),
)
