"""From measured results to tables, charts and pages."""
