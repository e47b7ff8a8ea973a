"""The published numbers, copied from the papers row by row, and the recipe that stands for each.

`TABLES` maps a table to its rows in order, (recipe, overall, many, medium, few); None where the source has none, or groups of its own.
"""

SUFFIXES = {"SAM": "sam", "ImbSAM": "imbsam", "CC-SAM": "cc_sam", "Focal-SAM": "focal_sam", "SSE-SAM": "sse_sam", "PGD": "pgd", "LPF-SGD": "lpf_sgd"}
LOSSES = {
    "CE": "ce", "CE+DRW": "ce_drw", "LDAM": "ldam", "LDAM+DRW": "ldam_drw", "LA": "la", "VS": "vs", "IB": "ib",
    "FFT": "clip_fft_la", "LIFT": "clip_lift_la",
}


def read(text):
    """[(loss, method, numbers)] of lines such as `CE+SAM 1.0 2.0`; a dash is None."""
    rows = []
    for line in text.strip().splitlines():
        label, *cells = line.split()
        loss, _, method = label.rpartition("+")
        known = loss and method in SUFFIXES
        rows.append((LOSSES[loss if known else label], SUFFIXES[method] if known else "sgd", [float(cell) for cell in cells]))
    return rows


# Li et al. 2025: head, medium, tail, all at ratio 100, then all at 200, 50, 10
LI_2 = """
CE              69.2 41.6  9.0 41.5 37.5 45.6 58.1
CE+SAM          72.7 41.8  7.0 42.2 38.9 46.8 59.7
CE+ImbSAM       68.5 46.0  9.6 43.0 38.7 47.8 60.1
CE+CC-SAM       70.1 44.2  9.0 42.7 39.1 47.4 60.0
CE+Focal-SAM    73.8 44.2  8.9 44.0 39.6 48.1 60.9
LA              61.3 42.3 28.6 44.9 41.8 50.3 59.4
LA+SAM          63.1 52.2 32.2 50.0 45.5 52.8 62.6
LA+ImbSAM       57.4 51.1 31.0 47.3 43.4 52.2 62.4
LA+CC-SAM       63.7 51.9 32.3 50.1 45.6 53.0 63.0
LA+Focal-SAM    63.9 53.0 32.5 50.7 46.0 54.5 63.8
FFT             88.2 79.3 66.1 78.5 76.3 81.2 85.5
FFT+SAM         87.9 82.5 70.8 80.9 77.7 83.4 86.8
FFT+ImbSAM      87.5 82.0 70.2 80.4 77.2 81.9 86.7
FFT+CC-SAM      87.8 82.9 70.9 81.0 78.2 83.5 87.0
FFT+Focal-SAM   88.1 82.8 72.4 81.6 79.0 83.9 87.3
LIFT            85.3 81.1 79.2 82.0 79.6 82.8 85.0
LIFT+SAM        85.0 81.5 79.4 82.1 79.6 83.0 85.1
LIFT+ImbSAM     84.7 81.9 78.9 82.0 79.8 83.1 85.2
LIFT+CC-SAM     84.8 81.8 79.0 82.0 79.7 83.1 85.2
LIFT+Focal-SAM  85.4 81.9 79.4 82.4 80.0 83.2 85.4
"""
LI_5 = """
CE                  87.0 73.6 54.0 73.1 68.6 78.3 87.4
CE+SAM              89.5 73.9 56.7 75.0 69.8 79.6 88.8
CE+ImbSAM           88.0 79.0 60.1 76.9 72.6 81.1 89.3
CE+CC-SAM           88.9 74.1 61.3 76.2 71.3 80.0 89.2
CE+Focal-SAM        89.3 75.4 62.9 77.2 71.7 82.0 90.0
LDAM+DRW            85.5 74.6 69.0 77.3 73.8 80.8 87.3
LDAM+DRW+SAM        88.9 78.3 73.2 81.0 78.6 84.5 89.4
LDAM+DRW+ImbSAM     86.5 79.7 73.7 80.6 77.3 84.0 88.9
LDAM+DRW+CC-SAM     88.4 79.2 73.3 81.1 78.9 84.4 89.4
LDAM+DRW+Focal-SAM  88.7 79.5 74.2 81.6 79.2 84.5 89.5
LA                  87.6 72.6 70.1 77.9 74.3 81.6 87.8
LA+SAM              86.7 80.6 78.2 82.3 78.9 85.4 90.2
LA+ImbSAM           84.1 81.6 80.1 82.2 78.6 84.7 89.5
LA+CC-SAM           86.6 80.8 78.5 82.5 79.1 85.5 90.2
LA+Focal-SAM        86.9 81.2 79.2 82.9 79.6 85.5 90.5
VS                  88.1 77.1 68.4 78.9 74.7 81.5 88.3
VS+SAM              85.6 82.7 76.6 82.0 79.0 85.4 90.3
VS+ImbSAM           85.3 82.1 77.3 81.9 78.7 84.8 90.0
VS+CC-SAM           85.6 82.0 78.2 82.3 79.3 85.5 90.4
VS+Focal-SAM        87.7 80.6 78.8 82.9 79.5 85.8 90.7
FFT                 97.9 95.8 95.9 96.7 95.7 97.1 97.9
FFT+SAM             97.5 96.5 97.0 97.0 96.6 97.5 98.0
FFT+ImbSAM          97.0 97.0 97.4 97.1 96.5 97.7 97.9
FFT+CC-SAM          97.6 96.2 97.0 97.0 96.6 97.6 98.0
FFT+Focal-SAM       97.5 96.4 97.5 97.2 96.6 97.5 98.2
LIFT                96.6 95.7 97.4 96.6 96.3 96.8 97.2
LIFT+SAM            96.6 95.6 97.8 96.7 96.4 96.7 97.0
LIFT+ImbSAM         96.5 95.9 97.7 96.7 96.4 96.7 97.2
LIFT+CC-SAM         96.5 95.6 97.9 96.6 96.4 96.7 97.3
LIFT+Focal-SAM      96.6 95.6 98.1 96.8 96.4 96.9 97.3
"""
LI_6 = """
LDAM+DRW            63.1 44.4 18.6 43.2 40.3 46.1 57.3
LDAM+DRW+SAM        67.6 51.7 25.9 49.5 45.8 52.6 61.1
LDAM+DRW+ImbSAM     62.5 48.8 26.4 46.9 42.5 51.3 59.8
LDAM+DRW+CC-SAM     66.5 52.2 26.2 49.4 45.7 52.3 61.0
LDAM+DRW+Focal-SAM  67.9 52.7 26.9 50.3 46.2 53.8 62.3
VS                  58.3 43.8 31.1 45.1 41.6 49.3 59.4
VS+SAM              62.7 52.0 29.3 49.0 45.5 53.5 62.5
VS+ImbSAM           56.1 53.3 29.9 47.2 44.7 52.6 62.6
VS+CC-SAM           62.2 52.2 30.3 49.1 45.2 53.7 62.9
VS+Focal-SAM        62.7 52.6 31.0 49.7 45.8 54.5 63.7
"""
# head, medium, tail, all on ImageNet-LT, then on iNaturalist
LI_3 = """
LA              62.8 49.0 31.8 52.0  68.4 69.4 69.2 69.2
LA+SAM          63.1 51.7 33.1 53.6  68.3 70.8 71.9 71.0
LA+ImbSAM       62.6 50.3 32.6 52.6  68.0 70.2 70.2 69.9
LA+Focal-SAM    63.9 52.2 34.4 54.3  68.4 72.0 72.5 71.8
FFT             79.9 70.5 51.0 71.5  69.7 71.9 71.7 71.6
FFT+SAM         80.9 72.9 54.3 73.5  69.5 74.4 74.4 73.8
FFT+ImbSAM      80.6 72.6 52.2 72.9  68.5 73.4 73.8 73.1
FFT+CC-SAM      80.6 73.6 54.2 73.6  69.2 74.1 74.2 73.6
FFT+Focal-SAM   80.8 73.9 54.4 73.9  69.1 74.7 74.3 74.0
LIFT            79.7 76.2 72.8 77.1  74.1 79.4 81.5 79.7
LIFT+SAM        79.9 76.4 72.7 77.2  73.5 79.7 81.6 79.8
LIFT+ImbSAM     79.8 76.4 72.5 77.2  73.2 79.5 81.4 79.6
LIFT+CC-SAM     79.8 76.4 73.3 77.3  74.0 79.4 81.5 79.7
LIFT+Focal-SAM  79.7 76.6 73.6 77.4  73.9 79.8 81.7 80.0
"""
# all at ratio 100, 200, 50, 10
LI_8 = """
CE+SAM              43.0 39.2 46.9 60.0
CE+Focal-SAM        44.0 39.6 48.1 60.9
LDAM+DRW+SAM        50.4 46.4 53.0 61.2
LDAM+DRW+Focal-SAM  50.3 46.2 53.8 62.3
VS+SAM              49.2 45.5 53.0 63.3
VS+Focal-SAM        49.7 45.8 54.5 63.7
LA+SAM              50.1 45.5 53.8 63.0
LA+Focal-SAM        50.7 46.0 54.5 63.8
FFT+SAM             81.2 78.3 83.6 86.9
FFT+Focal-SAM       81.6 79.0 83.9 87.3
LIFT+SAM            82.1 80.2 83.1 85.2
LIFT+Focal-SAM      82.4 80.0 83.2 85.4
"""
LI_9 = """
LA+SAM          63.2 51.6 34.8 53.8
LA+Focal-SAM    63.9 52.2 34.4 54.3
FFT+SAM         80.6 73.1 56.1 73.6
FFT+Focal-SAM   80.8 73.9 54.4 73.9
LIFT+SAM        79.8 76.1 73.5 77.2
LIFT+Focal-SAM  79.7 76.6 73.6 77.4
"""
LI_10 = """
LA+SAM          68.0 71.4 72.4 71.5
LA+Focal-SAM    68.4 72.0 72.5 71.8
"""
# Lyu et al. 2025: many, medium, few, average on CIFAR-100-LT, then on CIFAR-10-LT
LYU_1 = """
CE            74.3 43.1 11.6 44.6  92.3 78.6 54.8 77.0
CE+SAM        75.3 45.6 12.9 46.2  93.2 79.8 60.4 79.4
CE+ImbSAM     72.3 50.4 16.6 47.9  92.2 79.2 65.8 80.4
CE+SSE-SAM    71.7 54.5 17.1 49.3  93.0 80.5 72.8 83.2
LDAM          74.3 48.4 17.7 48.3  90.8 76.0 61.5 77.6
LDAM+SAM      76.3 49.6 19.4 49.9  91.2 77.4 62.6 78.5
LDAM+ImbSAM   72.0 55.4 23.3 51.6  89.1 78.9 71.7 80.8
LDAM+SSE-SAM  72.3 54.7 21.5 50.9  91.1 81.8 69.7 81.9
LA            75.0 45.7 16.2 47.1  91.8 80.0 65.4 80.4
LA+SAM        75.2 49.9 21.2 50.2  92.3 80.8 73.3 83.1
LA+ImbSAM     68.7 54.1 23.5 50.0  91.1 80.5 74.0 82.8
LA+SSE-SAM    68.8 58.7 28.6 53.2  92.5 81.1 79.2 85.1
VS            73.5 46.7 19.3 47.8  92.0 80.1 65.1 80.4
VS+SAM        73.0 53.9 24.6 51.8  89.9 81.2 81.9 84.9
VS+ImbSAM     68.9 55.2 25.4 51.0  90.9 80.0 76.6 83.3
VS+SSE-SAM    69.7 57.2 30.5 53.5  91.6 82.6 79.0 85.1
"""
LYU_2 = """
CE          54.8 43.8 25.7 45.1
CE+SAM      54.9 44.8 28.4 46.0
CE+ImbSAM   54.9 44.6 29.2 46.1
CE+SSE-SAM  56.0 46.0 31.2 47.5
"""
# recipe without its data: many, medium, few, average at IF = 100, then at IF = 50
LYU_3 = """
ce_sgd_lyu2025            74.3 43.1 11.6 44.6  73.6 41.4 15.4 49.9
ce_sam_lyu2025            75.3 45.6 12.9 46.2  74.7 43.9 19.1 52.1
ce_imbsam_rho005_lyu2025  73.0 50.1 15.2 47.6  71.4 48.5 23.2 53.3
ce_sse_sam_rho005         73.1 51.3 15.8 48.3  73.4 49.7 22.4 54.5
ce_sam_ext                75.2 48.6 14.9 47.8  74.4 46.4 21.3 53.4
ce_imbsam_lyu2025         72.3 50.4 16.6 47.9  70.9 50.2 24.1 54.0
ce_sse_sam                71.7 54.5 17.1 49.3  72.2 51.9 26.1 55.6
"""
# Rangwani et al. 2022: overall on CIFAR-10-LT and CIFAR-100-LT
RANGWANI_1 = """
CE            71.7 38.5
CE+SAM        73.1 39.6
CE+DRW        75.5 41.0
CE+DRW+SAM    80.6 44.6
LDAM+DRW      77.5 42.7
LDAM+DRW+SAM  81.9 45.4
VS            78.6 41.7
VS+SAM        82.4 46.6
"""
# overall, head, tail on CIFAR-10, then on CIFAR-100
RANGWANI_2 = """
CE            65.1 88.6 41.7  38.6 76.3  0.9
CE+SAM        66.1 92.9 39.4  39.3 78.6  0.0
CE+DRW        72.2 93.1 51.2  45.8 73.9 17.8
CE+DRW+SAM    79.3 92.7 65.8  48.3 73.1 23.4
LDAM+DRW      77.6 89.2 66.0  45.3 70.3 20.4
LDAM+DRW+SAM  81.0 90.5 71.5  49.2 74.0 24.4
VS            77.0 91.7 62.3  46.5 69.0 24.1
VS+SAM        82.0 91.7 72.3  48.3 70.4 26.2
"""
# overall on iNaturalist 2018 and ImageNet-LT
RANGWANI_3 = """
CE            60.3 42.7
CE+DRW        63.0 44.9
CE+DRW+SAM    65.3 47.1
LDAM+DRW      67.5 49.9
LDAM+DRW+SAM  70.1 53.1
"""
RANGWANI_4 = """
CE+DRW          75.5 41.0
CE+DRW+PGD      77.2 42.2
CE+DRW+LPF-SGD  78.5 42.9
CE+DRW+SAM      80.6 44.6
"""
# overall at beta 10, 50, 100, 200
RANGWANI_7 = """
CE+DRW        88.3 79.9 75.5 69.9
CE+DRW+SAM    89.7 83.8 80.6 76.6
LDAM+DRW      87.8 82.0 77.5 72.5
LDAM+DRW+SAM  89.4 84.8 81.9 78.1
"""
RANGWANI_8 = """
CE+DRW        58.1 46.5 41.0 36.9
CE+DRW+SAM    60.7 50.0 44.6 41.7
LDAM+DRW      57.8 47.1 42.7 38.3
LDAM+DRW+SAM  60.1 49.4 45.4 42.0
"""
# overall at beta 100, 200
RANGWANI_9 = """
IB      40.4 36.7
IB+SAM  42.8 37.7
"""
# Zhou et al. 2023b, appendix: cRT, with stage 1, with stage 2, with both; on CIFAR-10-LT, then on CIFAR-100-LT
ZHOU = {
    1: (50, (81.14, 84.03, 85.69, 85.81), (47.73, 52.41, 52.73, 53.24)),
    2: (100, (75.12, 79.74, 81.68, 82.42), (43.39, 47.74, 48.20, 48.77)),
    3: (200, (69.99, 76.51, 77.43, 78.31), (37.51, 43.12, 44.07, 44.99)),
}
ZHOU_STAGES = ("ce_sgd_then_crt", "ce_cc_sam_then_crt", "ce_sgd_then_cc_sam", "ce_cc_sam_then_cc_sam")
# vanilla, + SAM, + CC-SAM of LDAM on CIFAR-10-LT
ZHOU_4 = {200: (70.15, 68.59, 71.05), 100: (73.26, 74.20, 74.56), 50: (78.16, 78.88, 79.34)}


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


def overall_alone(text, sets, name):
    columns = {data: [] for data in sets}
    for loss, method, numbers in read(text):
        for data, number in zip(sets, numbers):
            columns[data].append((name(data, loss, method), number, None, None, None))
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
    "li2025_table10": four_by_four(LI_10, ["inaturalist2018"], lambda d, loss, m: li_name(d, loss, m, li_length(loss, m))),
    "lyu2025_table1": four_by_four(LYU_1, ("cifar100_lt_ir100", "cifar10_lt_ir100"), lyu_name),
    "lyu2025_table2": four_by_four(LYU_2, ["imagenet_lt"], lyu_name),
    "lyu2025_table3": lyu_3(),
    "rangwani2022_table1": overall_alone(RANGWANI_1, _LT_100, rangwani_name),
    "rangwani2022_table2": rangwani_2(),
    "rangwani2022_table3": overall_alone(RANGWANI_3, _BIG[::-1], rangwani_name),
    "rangwani2022_table4": overall_alone(RANGWANI_4, _LT_100, rangwani_name),
    "rangwani2022_table7": overall_alone(RANGWANI_7, [f"cifar10_lt_ir{ratio}" for ratio in (10, 50, 100, 200)], rangwani_name),
    "rangwani2022_table8": overall_alone(RANGWANI_8, [f"cifar100_lt_ir{ratio}" for ratio in (10, 50, 100, 200)], rangwani_name),
    "rangwani2022_table9": overall_alone(RANGWANI_9, [f"cifar100_lt_ir{ratio}" for ratio in (100, 200)], rangwani_name),
    **{f"zhou2023b_table{number}": zhou_stages(*columns) for number, columns in ZHOU.items()},
    "zhou2023b_table4": [
        (f"cifar10_lt_ir{ratio}_ldam_{method}_zhou2023b", number, None, None, None)
        for ratio, numbers in ZHOU_4.items()
        for method, number in zip(("sgd", "sam", "cc_sam"), numbers)
    ],
}
