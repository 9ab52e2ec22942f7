"""What runs say: tables, figures and the page of a study."""
