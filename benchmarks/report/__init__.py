"""The report: its record, tables, charts, pages, and the comparison of two reports."""
