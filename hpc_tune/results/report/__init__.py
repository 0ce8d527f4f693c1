"""The report of runs: tables in, figures and one HTML page out.

`view` is what a report is made from, `page` what puts it together; the other modules draw one part each.
"""
