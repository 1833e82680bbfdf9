"""From records to prose, figures and pages."""
