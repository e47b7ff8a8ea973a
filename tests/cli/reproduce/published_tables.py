"""The tables of the papers, and the recipe that stands for each of their rows.

`TABLES` maps a table to its rows in order, (recipe, overall, many, medium, few); None where the source has none, or groups of its own.
"""

from cli.reproduce.published_numbers import (
    LI_2,
    LI_3,
    LI_4,
    LI_5,
    LI_6,
    LI_7,
    LI_8,
    LI_9,
    LI_10,
    LYU_1,
    LYU_2,
    LYU_3,
    RANGWANI_1,
    RANGWANI_2,
    RANGWANI_3,
    RANGWANI_3_TAKEN,
    RANGWANI_4,
    RANGWANI_7,
    RANGWANI_8,
    RANGWANI_9,
    ZHONG,
    ZHOU,
    ZHOU_4,
    ZHOU_4_GCL,
    ZHOU_STAGES,
)

SUFFIXES = {
    "SAM": "sam",
    "ImbSAM": "imbsam",
    "CC-SAM": "cc_sam",
    "Focal-SAM": "focal_sam",
    "SSE-SAM": "sse_sam",
    "PGD": "pgd",
    "LPF-SGD": "lpf_sgd",
}
LOSSES = {
    "CE": "ce",
    "CE+DRW": "ce_drw",
    "LDAM": "ldam",
    "LDAM+DRW": "ldam_drw",
    "LA": "la",
    "VS": "vs",
    "IB": "ib",
    "FFT": "clip_fft_la",
    "LIFT": "clip_lift_la",
}


def read(text):
    """[(loss, method, numbers)] of lines such as `CE+SAM 1.0 2.0`."""
    rows = []
    for line in text.strip().splitlines():
        label, *cells = line.split()
        loss, _, method = label.rpartition("+")
        known = loss and method in SUFFIXES
        rows.append(
            (LOSSES[loss if known else label], SUFFIXES[method] if known else "sgd", [float(cell) for cell in cells])
        )
    return rows


def li_name(data, loss, method, length=""):
    first_stage_of_zhou = (loss, method) == ("ce", "cc_sam")
    return f"{data}_{loss}_{method}{length}{'_li2025' if first_stage_of_zhou else ''}"


def li_on_cifar(text, classes):
    blocks = {100: [], 200: [], 50: [], 10: []}
    for loss, method, (head, medium, tail, *overall) in read(text):
        for ratio, number in zip(blocks, overall):
            groups = (head, medium, tail) if ratio == 100 else (None, None, None)
            blocks[ratio].append((li_name(f"cifar{classes}_lt_ir{ratio}", loss, method), number, *groups))
    return [row for block in blocks.values() for row in block]


def li_length(loss, method):
    return {"focal_sam": ""}.get(method, "_30_epochs" if loss.startswith("clip") else "_300_epochs")


def li_equal_cost_on_cifar(text, groups_at_100):
    blocks = {100: [], 200: [], 50: [], 10: []}
    for loss, method, numbers in read(text):
        for ratio, number in zip(blocks, numbers):
            name = li_name(f"cifar100_lt_ir{ratio}", loss, method, li_length(loss, method))
            blocks[ratio].append((name, number, *groups_at_100.get(name, (None, None, None))))
    return [row for block in blocks.values() for row in block]


def four_by_four(text, sets, name):
    """Many, medium, few, overall, once for each set."""
    blocks = {data: [] for data in sets}
    for loss, method, numbers in read(text):
        for k, data in enumerate(sets):
            many, medium, few, overall = numbers[4 * k : 4 * k + 4]
            blocks[data].append((name(data, loss, method), overall, many, medium, few))
    return [row for block in blocks.values() for row in block]


def ranked(text, sets, name):
    """Overall, head, mid, tail, once for each set; head and tail, or overall and tail alone, where there are no others."""
    columns = {data: [] for data in sets}
    for loss, method, numbers in read(text):
        width = len(numbers) // len(sets)
        for k, data in enumerate(sets):
            overall, *groups = numbers[width * k : width * (k + 1)]
            columns[data].append((name(data, loss, method), overall, *[None] * (3 - len(groups)), *groups))
    return [row for column in columns.values() for row in column]


def taken():
    """cRT, LWS, MiSLAS, once for each of the large sets."""
    stages = {"cRT": "then_crt", "LWS": "then_lws", "MiSLAS": "mixup_then_las"}
    columns = {data: [] for data in _BIG[::-1]}
    for line in RANGWANI_3_TAKEN.strip().splitlines():
        label, *cells = line.split()
        for k, data in enumerate(columns):
            columns[data].append((f"second_stage/{data}_ce_sgd_{stages[label]}", *map(float, cells[4 * k : 4 * k + 4])))
    return [row for column in columns.values() for row in column]


def lyu_name(data, loss, method):
    return f"{data}_{loss}_{method}" + ("" if method == "sse_sam" else "_lyu2025")


def lyu_3():
    blocks = {100: [], 50: []}
    for line in LYU_3.strip().splitlines():
        recipe, *cells = line.split()
        numbers = [float(cell) for cell in cells]
        for k, ratio in enumerate(blocks):
            many, medium, few, overall = numbers[4 * k : 4 * k + 4]
            blocks[ratio].append((f"cifar100_lt_ir{ratio}_{recipe}", overall, many, medium, few))
    return [row for block in blocks.values() for row in block]


def rangwani_name(data, loss, method):
    return f"{data}_{loss}_{method}" + ("" if loss in ("ce_drw", "ib") else "_rangwani2022")


def rangwani_2():
    columns = {10: [], 100: []}
    for loss, method, numbers in read(RANGWANI_2):
        for k, classes in enumerate(columns):
            overall, head, tail = numbers[3 * k : 3 * k + 3]
            columns[classes].append((f"cifar{classes}_step_ir100_{loss}_{method}", overall, head, None, tail))
    return [row for column in columns.values() for row in column]


def zhou_stages(ratio, *columns):
    names = [f"second_stage/cifar{classes}_lt_ir{ratio}_{stages}" for classes in (10, 100) for stages in ZHOU_STAGES]
    return [(name, number, None, None, None) for name, number in zip(names, [*columns[0], *columns[1]])]


_GROUPS = {row[0]: row[2:] for row in li_on_cifar(LI_2, 100) + li_on_cifar(LI_6, 100)}
_BIG = ("imagenet_lt", "inaturalist2018")
_LT_100 = ("cifar10_lt_ir100", "cifar100_lt_ir100")
TABLES = {
    "li2025_table2": li_on_cifar(LI_2, 100),
    "li2025_table3": four_by_four(LI_3, _BIG, li_name),
    "li2025_table5": li_on_cifar(LI_5, 10),
    "li2025_table6": li_on_cifar(LI_6, 100),
    "li2025_table8": li_equal_cost_on_cifar(LI_8, _GROUPS),
    "li2025_table9": four_by_four(LI_9, ["imagenet_lt"], lambda d, loss, m: li_name(d, loss, m, li_length(loss, m))),
    "li2025_table10": four_by_four(
        LI_10, ["inaturalist2018"], lambda d, loss, m: li_name(d, loss, m, li_length(loss, m))
    ),
    "lyu2025_table1": four_by_four(LYU_1, ("cifar100_lt_ir100", "cifar10_lt_ir100"), lyu_name),
    "lyu2025_table2": four_by_four(LYU_2, ["imagenet_lt"], lyu_name),
    "lyu2025_table3": lyu_3(),
    "rangwani2022_table1": ranked(RANGWANI_1, _LT_100, rangwani_name),
    "rangwani2022_table2": rangwani_2(),
    "rangwani2022_table3": [*ranked(RANGWANI_3, _BIG[::-1], rangwani_name), *taken()],
    "rangwani2022_table4": ranked(RANGWANI_4, _LT_100, rangwani_name),
    "rangwani2022_table7": ranked(RANGWANI_7, [f"cifar10_lt_ir{ratio}" for ratio in (10, 50, 100, 200)], rangwani_name),
    "rangwani2022_table8": ranked(
        RANGWANI_8, [f"cifar100_lt_ir{ratio}" for ratio in (10, 50, 100, 200)], rangwani_name
    ),
    "rangwani2022_table9": ranked(RANGWANI_9, [f"cifar100_lt_ir{ratio}" for ratio in (100, 200)], rangwani_name),
    **{f"zhou2023b_table{number}": zhou_stages(*columns) for number, columns in ZHOU.items()},
    "zhou2023b_table4": [
        (f"cifar10_lt_ir{ratio}_ldam_{method}_zhou2023b", number, None, None, None)
        for ratio, numbers in ZHOU_4.items()
        for method, number in zip(("sgd", "sam", "cc_sam"), numbers)
    ]
    + [
        (f"cifar10_lt_ir{ratio}_gcl_{method}_zhou2023b", number, None, None, None)
        for ratio, numbers in ZHOU_4_GCL.items()
        for method, number in zip(("sgd", "cc_sam"), numbers)
    ],
    "zhong2021_code": [
        (f"second_stage/cifar{data}_lt_ir100_ce_sgd_mixup{then}", number, None, None, None)
        for data, numbers in ZHONG.items()
        for then, number in zip(("", "_then_las"), numbers)
    ],
    "alshammari2022_table1": [
        ("cifar100_lt_ir100_ce_sgd_no_decay", 38.38, 64.05, 35.80, 11.43),
        ("cifar100_lt_ir100_ce_sgd_decay", 46.08, 76.94, 44.28, 12.17),
        ("second_stage/cifar100_lt_ir100_ce_sgd_then_maxnorm", 53.35, 72.60, 51.86, 32.63),
    ],
}


CORRUPTIONS = (
    "motion_blur", "defocus_blur", "glass_blur", "zoom_blur", "gaussian_noise", "impulse_noise", "shot_noise", "contrast",
    "elastic_transform", "jpeg_compression", "pixelate", "brightness", "snow", "fog", "frost",
)  # fmt: skip


def shifted_accuracies():
    """[(recipe, {set: (overall, many, medium, few)})] of Li et al. 2025 Table 4."""
    rows = []
    for loss, method, numbers in read(LI_4):
        sets = {}
        for k, name in enumerate(("imagenet_sketch", "imagenetv2", "imagenet_c")):
            many, medium, few, overall = numbers[4 * k : 4 * k + 4]
            sets[name] = {"overall": overall, "many": many, "medium": medium, "few": few}
        rows.append((f"imagenet_lt_{loss}_{method}", sets))
    return rows


def corruption_errors():
    """[(recipe, mCE, {corruption: CE})] of its Table 7."""
    return [
        (f"imagenet_lt_{loss}_{method}", mce, dict(zip(CORRUPTIONS, ce))) for loss, method, (mce, *ce) in read(LI_7)
    ]


# Figures: the rows, the setting, and the points that a text states
OF_TABLES = {row[0]: row[1:] for name, rows in TABLES.items() for row in rows}
# The figures over a training, and the rows that each compares; what they show of them as the captions have it.
_RANGWANI_PAIR = ["cifar10_lt_ir100_ce_drw_sgd", "cifar10_lt_ir100_ce_drw_sam"]
_LYU_THREE = ["sam_lyu2025", "imbsam_lyu2025", "sse_sam"]
_LI_FOUR = {"vs": ["sam", "imbsam", "cc_sam", "focal_sam"], "ce": ["sam", "imbsam", "cc_sam_li2025", "focal_sam"]}
FIGURES = {
    "lyu2025_fig3": ["accuracy_over_training", [f"cifar100_lt_ir100_ce_{m}" for m in _LYU_THREE]],
    "lyu2025_fig5": ["accuracy_over_training", [f"cifar10_lt_ir100_ce_{m}" for m in _LYU_THREE]],
    "lyu2025_fig4": ["eigenvalue_ratios", [f"cifar100_lt_ir100_ce_{m}" for m in
                                           ("sgd_lyu2025", "sam_lyu2025", "imbsam_lyu2025", "sam_ext", "sse_sam")]],
    "rangwani2022_fig2": ["spectra", _RANGWANI_PAIR],
    "rangwani2022_fig3": ["curvature_over_training", _RANGWANI_PAIR],
    "rangwani2022_fig5": ["spectra", ["cifar10_lt_ir100_ce_sgd_rangwani2022"]],
    "rangwani2022_fig6": ["spectra", _RANGWANI_PAIR],
    "rangwani2022_fig7": ["spectra", [f"cifar10_lt_ir100_ldam_drw_{m}_rangwani2022" for m in ("sgd", "sam")]],
    **{f"li2025_fig{number}": [figure, [f"cifar{data}_lt_ir100_{loss}_{m}" for m in _LI_FOUR[loss]]]
       for number, figure, data, loss in ((2, "spectra", 10, "vs"), (6, "surface_2d", 100, "vs"), (7, "surface_2d", 10, "vs"),
                                          (9, "spectra", 100, "vs"), (10, "spectra", 10, "ce"), (11, "spectra", 100, "ce"))},
    "rangwani2022_fig3c": ["lam_min_by_value", ["cifar10_lt_ir100_ce_drw_sam"]],
    "li2025_fig3": ["focal_weights", [f"{data}_la_focal_sam" for data in ("cifar10_lt_ir100", "cifar100_lt_ir100", *_BIG)]],
    "zhou2023b_fig2": ["accuracy_by_group", [f"second_stage/places_lt_ce_{stages}" for stages in (
        "sgd_then_crt", "model_perturbation_then_crt", "spectral_norm_then_crt", "sgd_mixup_then_las")]],
    "zhou2023b_fig3": ["bounds_over_training", ["cifar10_lt_ir100_ce_cc_sam"]],
    "zhou2023b_fig4": ["surface_2d", ["second_stage/cifar10_lt_ir100_ce_sgd_zhou2023b", "cifar10_lt_ir100_ldam_sgd_zhou2023b",
                                      "second_stage/cifar10_lt_ir100_ce_sgd_mixup_then_las", "cifar10_lt_ir100_gcl_sgd_zhou2023b", "cifar10_lt_ir100_ce_cc_sam"]],
}  # fmt: skip
SWEEPS = {
    "rangwani2022_fig4": {"cifar10_lt_ir100_ce_drw_sam": {0.05: (None, None, None, 63.0), 0.8: (None, None, None, 73.0),
                                                          0.5: OF_TABLES["cifar10_lt_ir100_ce_drw_sam"]}},
    "lyu2025_fig6": {"cifar100_lt_ir100_ce_sse_sam": {0.05: OF_TABLES["cifar100_lt_ir100_ce_sse_sam_rho005"],
                                                      0.1: OF_TABLES["cifar100_lt_ir100_ce_sse_sam"]}},
    "lyu2025_fig7": {"cifar100_lt_ir100_ce_sse_sam": {0.0: OF_TABLES["cifar100_lt_ir100_ce_imbsam_lyu2025"],
                                                      0.7: OF_TABLES["cifar100_lt_ir100_ce_sse_sam"],
                                                      1.0: OF_TABLES["cifar100_lt_ir100_ce_sam_ext"]}},
    **{f"li2025_fig{number}": {f"cifar{data}_lt_ir100_{loss}_focal_sam": {at[data]: OF_TABLES[f"cifar{data}_lt_ir100_{loss}_focal_sam"]}
                               for data in (10, 100) for loss in ("ldam_drw", "la", "vs")}
       for number, at in ((4, {10: 3.0, 100: 3.2}), (5, {10: 0.5, 100: 0.8}), (8, {10: 0.2, 100: 0.3}))},
    **{f"zhou2023b_{name}": {row: {at: OF_TABLES[row]} for row in (
        f"second_stage/cifar{data}_lt_ir100_ce_cc_sam_then_cc_sam" for data in (10, 100))} for name, at in (("mixup", 0.0), ("mix", 1.0))},
    "li2025_weighting": {
        row: {"none": OF_TABLES[row]} for row in ("cifar100_lt_ir100_ce_cc_sam_li2025", "cifar100_lt_ir100_la_cc_sam")
    },
    "zhou2023b_fig1": {row: {0.01: OF_TABLES[row]} for row in (
        f"second_stage/cifar{data}_lt_ir100_ce_cc_sam_then_cc_sam" for data in (10, 100))},
}  # fmt: skip
