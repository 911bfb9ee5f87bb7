"""Ablations: one recipe with a few settings changed, each row trained with several seeds.

    table = run_ablation(recipe, ABLATIONS["components"], data_root, output_dir, score)
    summarise(table, rows)  # mean over the seeds, interval, difference to the last row

`rows` has the settings to compare (Co-Seg++ tables 7, 8 and 11 and figure 8), `run` trains and
scores, `summary` makes the final table.
"""
