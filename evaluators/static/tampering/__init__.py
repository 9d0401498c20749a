"""Does a patch tamper with the evaluation? What its code and configuration show."""
