"""The claims of TLXML and of Ren et al. on meta-learning, with their rules and margins."""

from __future__ import annotations

from explainlib.studies.claims.claim import Claim, Rule

ALL = Rule("count", 1.0, "'consistently' and 'perfectly', all of 128; the tolerance of 1 in 20 is ours", tolerance=0.05,
           lowest=0.0, highest=1.0, printed_effect=1.0)  # fmt: skip
SHARE = {"lowest": -1.0, "highest": 1.0}
CLOSE = 0.02  # of accuracy
LESS_THAN_PRINTED = "the margin is inside the quantity: .02 of accuracy, twice the printed difference .7908 - .7804"

TLXML = (
    Claim(
        "T1",
        "Fig 3a",
        "the training task that the test repeats gets the top score",
        "share of tests whose own task is first, 512 eigenvalues kept",
        (ALL,),
    ),
    Claim(
        "T2",
        "Fig 3b, Tables 1, 3",
        "unpruned, the self-rank is not always 0; part of the eigenvalues are negative (428 of 1,413)",
        "share of tests whose own task is not first, unpruned; share of eigenvalues that are negative beyond rounding",
        (
            Rule("count", 0.05, "what T1 and T3 leave to 'always'", lowest=0.0, highest=1.0),
            Rule("direction", lowest=0.0, highest=1.0, printed_effect=428 / 1413),
        ),
    ),
    Claim(
        "T3",
        "Tables 1, 3",
        "pruned, the identical task is consistently first",
        "share of tests whose own task is first, 512 eigenvalues kept",
        (ALL,),
    ),
    Claim(
        "T4",
        "Tables 1, 3",
        "pruning raises the correlation of rank and score with the degradation",
        "correlation pruned minus unpruned, of rank and of minus the score, by alpha and by ratio",
        (Rule("direction", lowest=-2.0, highest=2.0),),
    ),
    Claim(
        "T5",
        "Fig 4a",
        "rank and score worsen as alpha grows",
        "least of rank's rise and score's fall (correlations), 512 kept",
        (Rule("direction", **SHARE),),
    ),
    Claim(
        "T6",
        "Fig 4b",
        "rank and score worsen as the share of dark images grows",
        "least of rank's rise and score's fall (correlations), 512 kept",
        (Rule("direction", **SHARE),),
    ),
    Claim(
        "T7",
        "Fig 7",
        "non-zero eigenvalues are almost restricted to the first several hundred",
        "1000 minus the eigenvalues above 1e-3 of the largest",
        (Rule("larger-than", 0.0, "'several hundred', read as fewer than 1,000"),),
    ),
    Claim(
        "T8",
        "Fig 8",
        "with the buffer the CNN perfectly tells every identical training task",
        "share of training tasks that are first among all, of MAML with the most tasks",
        (ALL,),
    ),
    Claim(
        "T9",
        "Tables 2, 4",
        "an overfitted learner puts normal and noise tasks in the wrong order",
        "one half minus the share in proper order, of overfitted MAML learners",
        (Rule(lowest=-0.5, highest=0.5, printed_effect=0.5 - 10 / 128),),
    ),
    Claim(
        "T10",
        "Tables 2, 4",
        "rotated copies or weight decay turn the order round",
        "least of (share of the regularised minus share of the plain learner), and of the regularised share minus "
        "one half",
        (Rule(**SHARE, printed_effect=101 / 128 - 0.5),),
    ),
    Claim(
        "T11",
        "Tables 5, 6",
        "on Omniglot the order shifts to the proper one with the number of training tasks",
        "share with most tasks minus share with fewest, of MAML",
        (Rule(**SHARE, printed_effect=(73 - 58) / 128),),
    ),
    Claim(
        "T12",
        "Tables 7-10",
        "Prototypical Networks show the same tendency",
        "share with most tasks minus share with fewest, of Prototypical Networks",
        (Rule(**SHARE),),
    ),
    Claim(
        "T13",
        "Tables 11-16",
        "self-ranks stay near 0 under the approximation",
        "least share of training tasks that are first among all, of all MAML learners",
        (Rule("larger-than", 0.9, "ours, fixed before the run", lowest=0.0, highest=1.0, printed_effect=1.0),),
    ),
    Claim(
        "T14",
        "Tables 17-21",
        "most rows and columns have their largest correlation where size and number are "
        "equal; larger sizes correlate less",
        "share of rows and columns with the largest value on the diagonal, unseen tests; correlation at the smallest "
        "size minus at the largest",
        (Rule("larger-than", 0.5, "'most'", lowest=0.0, highest=1.0), Rule("direction", lowest=-2.0, highest=2.0)),
    ),
    Claim(
        "T15",
        "B.1",
        "about 20 minutes exact for 128 tasks at 1,285 parameters; 15 hours Gauss-Newton for the CNN",
        "minutes for 128 tasks over the printed 20",
        (Rule("close-to", 0.5, "'about'", 1.0, lowest=0.0),),
    ),
)

BILEVEL = (
    Claim(
        "R1",
        "Table 1",
        "editing by task-IF is close to retraining in accuracy",
        "least of .02 minus the gap to solving again, and of no edit's gap minus it, most tasks removed",
        (Rule(source=LESS_THAN_PRINTED, printed_effect=CLOSE - 0.0104),),
    ),
    Claim(
        "R2",
        "Table 1",
        "direct-IF is far below in accuracy",
        "solved again minus direct, minus .02",
        (Rule(source="'far': more than what R1 calls close", printed_effect=0.7908 - 0.5422 - CLOSE),),
    ),
    Claim(
        "R3",
        "Table 1",
        "task-IF costs 20 to 25% of retraining",
        "a quarter minus the share of the seconds",
        (Rule(source="'save 75%-80% of runtime'", printed_effect=0.25 - 65.69 / 316.74),),
    ),
    Claim(
        "R4",
        "Table 1",
        "instance-IF, training and validation, is close to retraining at about 2% of the time",
        "least of .02 minus the gap, of no edit's gap minus it, of 4% minus the share of seconds",
        (Rule(source="as R1; 4% is twice the printed share", printed_effect=CLOSE - (0.7852 - 0.7686)),),
    ),
    Claim(
        "R5",
        "Table 1",
        "TracIn comes near task-IF; EK-FAC IF and TRAK do not",
        "least of .02 minus TracIn's distance, and of EK-FAC's and TRAK's shortfalls minus .02",
        (Rule(source="'near' and 'not near' by R1's .02", printed_effect=CLOSE - (0.7804 - 0.7690)),),
    ),
    Claim(
        "R6",
        "Fig 1",
        "removing by influence score beats random removal (.625 against .55)",
        "accuracy by influence minus random at 25% inspected, least over shares with wrong labels",
        (Rule(printed_effect=0.075),),
    ),
    Claim(
        "R7",
        "Fig 1",
        "nearly all of 80% mislabelled tasks are found at 40% inspected, random is linear",
        "share found at 40% inspected, fewest wrong labels, minus .95",
        (Rule(source="'nearly 100%', read as 95", lowest=-0.95, highest=0.05, printed_effect=0.05),),
    ),
    Claim(
        "R8",
        "Fig 2",
        "removing high-influence tasks lowers accuracy more than random removal",
        "accuracy without 40% at random minus without the 40% most helpful",
        (Rule(printed_effect=0.04),),
    ),
)
