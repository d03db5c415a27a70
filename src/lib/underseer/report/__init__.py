"""Results, tables, figures and pages: everything shown is made from results.json."""
