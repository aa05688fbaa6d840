from twisted.application.service import ServiceMaker

dangad = ServiceMaker(
    "dangad",
    "dangad.tap",
    "A job server: performs its clients' AMP commands in worker processes.",
    "dangad",
)
