"""What ngrok's error codes mean for us, and what helps. Source: https://ngrok.com/docs/errors."""

import re

TOKEN_PAGE = "https://dashboard.ngrok.com/get-started/your-authtoken"
_TOKEN = f"copy the one of your account from {TOKEN_PAGE} into NGROK_AUTHTOKEN"
_FIXES = {
    105: f"this is no ngrok token: {_TOKEN}",
    107: f"ngrok does not know this token (any more): {_TOKEN}",
    108: "your account has no agent session left: stop the other one (https://dashboard.ngrok.com/agents)",
    120: "ngrok's agent is too old: run `pyngrok update`",
    121: "ngrok's agent is too old: run `pyngrok update`",
    320: "this domain belongs to another ngrok account: give --domain one of yours "
    "(https://dashboard.ngrok.com/domains)",
    324: "your account has no endpoint left in this session: stop another tunnel "
    "(https://dashboard.ngrok.com/endpoints)",
    334: "this address is in use by another agent of yours: stop it "
    "(https://dashboard.ngrok.com/endpoints), or give another --domain",
    720: "the account's traffic is limited: wait",
    727: "the month's requests of the account are used up: wait for the next month, or see "
    "https://dashboard.ngrok.com/billing",
    734: "too many requests a minute: wait one",
    3004: "what answers on the laptop does not speak HTTP: is it jaxrl.serve?",
    3200: "no tunnel is open at this address: start jaxrl.serve on the laptop, and take the address "
    "that it shows",
    4018: f"ngrok needs an account, which is free, and its token: {_TOKEN}",
    4027: "the account's traffic is used up: see https://dashboard.ngrok.com/billing",
    6022: f"the tunnel was opened without an account: {_TOKEN}",
    6024: "ngrok shows its warning page for browsers: this is not MLflow's answer",
    8012: "the tunnel is open, and no server answers behind it: start jaxrl.serve again",
}


def explain(text: str) -> str | None:
    """What the error code in ``text`` means, in a line without the text itself, which may hold a
    token; None where there is no code."""
    match = re.search(r"ERR_NGROK_(\d+)", text)
    if match is None:
        return None
    page = f"see https://ngrok.com/docs/errors/err_ngrok_{match[1]}"
    return f"{_FIXES.get(int(match[1]), page)} (ERR_NGROK_{match[1]})"
