"""Words that fill the slots of everyday sentences (`everyday.py`)."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ACRONYMS = _words(
    """
    FBI CIA BBC CNN NBC USA UK EU UN USB PDF CD DVD TV PC CPU GPU RAM AI IT HR CEO CFO CTO VIP
    ATM GPS SMS PIN URL HTML CSS SQL API IBM BMW AMC HBO UPS DHL FAQ DIY ETA ASAP RSVP PS AM PM
    DJ ID IQ MRI DNA RNA HIV ICU ER MD PhD MBA BA NGO IMF WHO WTO FDA EPA IRS NYPD LAPD NBA NFL
    NHL MLB UFC MVP LCD LED HDMI VPN WiFi IP ISP SSD HDD OS PR QA TBD FYI UFO SUV RV AC DC LA NY
    UCLA MIT NYU NASA NATO UNESCO UNICEF IKEA
    """
)
MONTHS = _words(
    """
    January February March April May June July August September October November December
    """
)
DAYS = _words(
    """
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    """
)
THINGS = _words(
    """
    bicycle blanket bottle broom bucket cabinet calendar camera candle carpet chair charger
    clock coat compass couch cushion desk door drill drum envelope fan fence flashlight fridge
    guitar hammer hat heater helmet jacket jar kettle keyboard ladder lamp laptop letter lock
    magazine map mattress microphone mirror monitor mug notebook oven painting pan pencil piano
    pillow plant plate printer puzzle radio raincoat rope ruler rug saddle scarf scooter shelf
    shirt shovel sofa speaker spoon suitcase sweater table tablet telephone tent ticket toaster
    towel tractor trumpet truck umbrella vase violin wallet watch wheelbarrow window wrench
    """
)
FOODS = _words(
    """
    apples bananas beans bread broccoli butter cabbage cake carrots celery cheese cherries
    chicken chocolate coconut cookies corn cream cucumbers dates figs flour garlic ginger grapes
    honey jam lemons lentils lettuce limes mangoes milk mushrooms mustard noodles nuts oats
    olives onions oranges pasta peaches pears peas pepper pineapple plums potatoes pumpkin
    raisins rice salad salmon salt sausages spinach strawberries sugar tea tofu tomatoes tuna
    turkey vinegar walnuts yeast yogurt
    """
)
TASKS = (
    "book the hotel",
    "clean the garage",
    "feed the cats",
    "fix the printer",
    "mail the forms",
    "buy stamps",
    "return the drill",
    "walk the dog",
    "charge the battery",
    "cut the grass",
    "pick up the kids",
    "pay the electrician",
    "back up the photos",
    "cancel the subscription",
    "iron the shirts",
    "renew the passport",
    "wash the car",
    "sweep the porch",
    "write the speech",
    "answer the messages",
    "order new glasses",
    "check the oil",
    "defrost the freezer",
    "update the website",
    "phone the plumber",
    "change the sheets",
)
JOBS = _words(
    """
    accountant architect baker barber carpenter chef clerk coach conductor dentist designer
    doctor driver editor electrician engineer farmer gardener guide judge lawyer librarian
    manager mechanic musician neighbor nurse painter photographer pilot plumber professor
    reporter sailor scientist secretary singer surgeon tailor teacher translator vet waiter
    writer
    """
)
ADJECTIVES = _words(
    """
    angry beautiful boring brave bright broken busy calm careful cheap clever cold comfortable
    crowded curious dangerous dark delicious difficult dirty early easy empty expensive famous
    fast friendly full funny gentle happy healthy heavy helpful honest hungry important late
    lazy lonely long loud lucky modern narrow nervous new noisy old patient perfect polite poor
    popular proud quick quiet ready rich rude sad safe serious sharp short shy silly simple
    sleepy slow small smart soft strange strong surprised sweet tall tired ugly useful warm weak
    wet wide wild wonderful wrong young
    """
)
RELATIVES = _words(
    """
    mother father sister brother aunt uncle cousin grandfather grandmother nephew niece boss
    colleague dentist friend landlord roommate wife husband son daughter
    """
)
TITLES = _words(
    """
    Mr. Mrs. Ms. Dr. Prof. Captain Judge Senator Professor Coach Sergeant Aunt Uncle
    """
)
STREETS = _words(
    """
    Street Avenue Road Lane Drive Boulevard Court Place Way St. Ave. Rd. Blvd.
    """
)
FIRMS = _words(
    """
    Inc. Ltd. Corp. Group Foundation Brothers Bank Airlines Motors Labs Partners
    """
)
STEMS = _words(
    """
    report budget invoice photo notes draft summary backup minutes recipe letter schedule main
    index setup install login contacts agenda final results thesis chapter slides video song
    """
)
ENDINGS = _words(
    """
    pdf txt docx xlsx csv json html css js py md png jpg gif mp3 mp4 wav zip log xml
    """
)
SITES = _words(
    """
    com com com org net io edu co.uk gov dev
    """
)
VERBS = _words(
    """
    said whispered shouted asked replied muttered laughed answered explained repeated cried
    announced added insisted
    """
)
UNITS = _words(
    """
    km kg g mg cm mm m ml L lbs oz ft mph km/h GB MB TB kW °C °F % Hz hours minutes miles acres
    gallons inches
    """
)
