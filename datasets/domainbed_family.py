"""The image-folder data sets of DomainBed: PACS, VLCS, OfficeHome, TerraIncognita, DomainNet, SVIRO.

Domains have DomainBed's order and short names, so that index i here is its `env{i}` (`domainbed/datasets.py`). Classes
have the byte order of their folders, torchvision ImageFolder's. Sources, licences, papers and counts stand in the
declarations below; the prompt of CLIPood's code for all of them is "a photo of a {}.".
"""

from bench.dataset import Archive
from bench.image_folders import ImageFolders, Version
from bench.registry import datasets

OFFICE_HOME_CLASSES = tuple(
    """
    Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards Computer
    Couch Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork Glasses Hammer
    Helmet Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook Oven Pan Paper_Clip Pen
    Pencil Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors Screwdriver Shelf Sink Sneakers Soda
    Speaker Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam
    """.split()  # noqa: SIM905
)
"""Folder names in byte order, so `TV` comes before `Table`."""

DOMAIN_NET_CLASSES = tuple(
    """
    The_Eiffel_Tower The_Great_Wall_of_China The_Mona_Lisa aircraft_carrier airplane alarm_clock ambulance angel
    animal_migration ant anvil apple arm asparagus axe backpack banana bandage barn baseball baseball_bat basket
    basketball bat bathtub beach bear beard bed bee belt bench bicycle binoculars bird birthday_cake blackberry
    blueberry book boomerang bottlecap bowtie bracelet brain bread bridge broccoli broom bucket bulldozer bus bush
    butterfly cactus cake calculator calendar camel camera camouflage campfire candle cannon canoe car carrot castle
    cat ceiling_fan cell_phone cello chair chandelier church circle clarinet clock cloud coffee_cup compass computer
    cookie cooler couch cow crab crayon crocodile crown cruise_ship cup diamond dishwasher diving_board dog dolphin
    donut door dragon dresser drill drums duck dumbbell ear elbow elephant envelope eraser eye eyeglasses face fan
    feather fence finger fire_hydrant fireplace firetruck fish flamingo flashlight flip_flops floor_lamp flower
    flying_saucer foot fork frog frying_pan garden garden_hose giraffe goatee golf_club grapes grass guitar
    hamburger hammer hand harp hat headphones hedgehog helicopter helmet hexagon hockey_puck hockey_stick horse
    hospital hot_air_balloon hot_dog hot_tub hourglass house house_plant hurricane ice_cream jacket jail kangaroo
    key keyboard knee knife ladder lantern laptop leaf leg light_bulb lighter lighthouse lightning line lion
    lipstick lobster lollipop mailbox map marker matches megaphone mermaid microphone microwave monkey moon mosquito
    motorbike mountain mouse moustache mouth mug mushroom nail necklace nose ocean octagon octopus onion oven owl
    paint_can paintbrush palm_tree panda pants paper_clip parachute parrot passport peanut pear peas pencil penguin
    piano pickup_truck picture_frame pig pillow pineapple pizza pliers police_car pond pool popsicle postcard potato
    power_outlet purse rabbit raccoon radio rain rainbow rake remote_control rhinoceros rifle river roller_coaster
    rollerskates sailboat sandwich saw saxophone school_bus scissors scorpion screwdriver sea_turtle see_saw shark
    sheep shoe shorts shovel sink skateboard skull skyscraper sleeping_bag smiley_face snail snake snorkel snowflake
    snowman soccer_ball sock speedboat spider spoon spreadsheet square squiggle squirrel stairs star steak stereo
    stethoscope stitches stop_sign stove strawberry streetlight string_bean submarine suitcase sun swan sweater
    swing_set sword syringe t-shirt table teapot teddy-bear telephone television tennis_racquet tent tiger toaster
    toe toilet tooth toothbrush toothpaste tornado tractor traffic_light train tree triangle trombone truck trumpet
    umbrella underwear van vase violin washing_machine watermelon waterslide whale wheel windmill wine_bottle
    wine_glass wristwatch yoga zebra zigzag
    """.split()  # noqa: SIM905
)
"""Folder names in byte order, ImageFolder's and DomainBed's; the ids in the official lists follow another order."""


def _total(counts: tuple[int, ...]) -> str:
    return f"{sum(counts):,}"


datasets.add(
    "PACS",
    ImageFolders(
        name="PACS",
        summary="seven things as art painting, cartoon, photo and sketch; 9,991 images",
        domains=("A", "C", "P", "S"),
        folders=("art_painting", "cartoon", "photo", "sketch"),
        roots=("PACS", "kfold", "PACS/images", "PACS/kfold"),
        class_folders=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        counts=(2048, 2344, 1670, 3929),
        short_sides=(227, 227, 227, 227),
        by_hand=(
            "Open the address in a browser (Google Drive asks before large files) and save PACS.zip",
            "Check it: md5sum PACS.zip gives fd5db817f7cdafeef3bfd525aaf9b42e",
            "Unpack it below --data-dir; the folder may stay kfold/ or be renamed to PACS/",
        ),
        source=(
            "https://drive.google.com/uc?id=1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd (PACS.zip, "
            "md5 fd5db817f7cdafeef3bfd525aaf9b42e; holds the folder kfold)"
        ),
        licence="none stated; research use",
        citation="Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017",
    ),
)

datasets.add(
    "VLCS",
    ImageFolders(
        name="VLCS",
        summary="five kinds of things in photos of Caltech101, LabelMe, SUN09 and VOC2007; 10,729 images",
        domains=("C", "L", "S", "V"),
        folders=("Caltech101", "LabelMe", "SUN09", "VOC2007"),
        spellings={"Caltech101": ("Caltech",), "SUN09": ("SUN",), "VOC2007": ("VOC", "PASCAL")},
        roots=("VLCS",),
        class_folders=("bird", "car", "chair", "dog", "person"),
        counts=(1415, 2656, 3282, 3376),
        by_hand=(
            "Open the address in a browser (Google Drive asks before large files) and save VLCS.tar.gz",
            "Check it: md5sum VLCS.tar.gz gives 8870171eba660927d9668f4e515928e4",
            "Unpack it below --data-dir, which makes VLCS/",
        ),
        oddities=("A copy built anew from the four sources has other file names, so other splits and another digest",),
        source=(
            "https://drive.google.com/uc?id=1skwblH1_okBwxWxmRsp9_qi15hyPpxg8 (VLCS.tar.gz, "
            "md5 8870171eba660927d9668f4e515928e4); the copy with CALTECH/full/0 is another one"
        ),
        licence="the terms of its four sources; research use",
        citation="Fang et al., Unbiased Metric Learning, ICCV 2013",
    ),
)

datasets.add(
    "OfficeHome",
    ImageFolders(
        name="OfficeHome",
        summary="65 everyday objects as art, clip art, product picture and photo; 15,588 images",
        domains=("A", "C", "P", "R"),
        folders=("Art", "Clipart", "Product", "Real World"),
        spellings={"Real World": ("Real",)},
        roots=("office_home", "OfficeHomeDataset_10072016"),
        class_folders=OFFICE_HOME_CLASSES,
        counts=(2427, 4365, 4439, 4357),
        by_hand=(
            "Open the address in a browser (Google Drive asks before large files) and save the archive",
            "Check it: md5sum gives b1c14819770c4448fd5b6d931031c91c",
            "Unpack it below --data-dir; the folder may stay OfficeHomeDataset_10072016/ or be renamed to office_home/",
        ),
        source=(
            "https://drive.google.com/uc?id=1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC (OfficeHomeDataset_10072016.zip, "
            "md5 b1c14819770c4448fd5b6d931031c91c)"
        ),
        licence="fair use; academic, non-commercial research only",
        citation="Venkateswara et al., Deep Hashing Network for Unsupervised Domain Adaptation, CVPR 2017",
    ),
)

TERRA_CLASSES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")
_TERRA_OLD = (4879, 9767, 4020, 6122)
_TERRA_NEW = (4741, 9736, 3970, 5883)

datasets.add(
    "TerraIncognita",
    ImageFolders(
        name="TerraIncognita",
        summary=f"animals at four camera traps; {_total(_TERRA_OLD)} images, or {_total(_TERRA_NEW)} as built now",
        domains=("L100", "L38", "L43", "L46"),
        folders=("location_100", "location_38", "location_43", "location_46"),
        roots=("terra_incognita",),
        class_folders=TERRA_CLASSES,
        versions=(
            Version(
                "old",
                _TERRA_OLD,
                f"the old version ({_total(_TERRA_OLD)} images), as in DomainBed's paper, SWAD and MIRO",
            ),
            Version(
                "new",
                _TERRA_NEW,
                f"the new version ({_total(_TERRA_NEW)} images), as DomainBed's script builds it now",
            ),
        ),
        source=(
            "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps/ (eccv_18_all_images_sm.tar.gz and "
            "eccv_18_annotations.tar.gz), sorted into folders by DomainBed's download script"
        ),
        licence="CDLA-Permissive-1.0",
        by_hand=(
            "Download eccv_18_all_images_sm.tar.gz and eccv_18_annotations.tar.gz from the address",
            "Sort the images into terra_incognita/location_<L>/<class>/ as DomainBed's domainbed/scripts/download.py does: "
            "locations 38, 43, 46 and 100, the ten classes",
        ),
        oddities=("An image annotated with two of the classes lies in two class folders",),
        citation="Beery et al., Recognition in Terra Incognita, ECCV 2018",
    ),
)

_VISDA_2019 = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_DOMAIN_NET_CLEANED = (48129, 51605, 72266, 172500, 172947, 69128)
_DOMAIN_NET_WHOLE = (48833, 53201, 75759, 172500, 175327, 70386)

datasets.add(
    "DomainNet",
    ImageFolders(
        name="DomainNet",
        summary=f"345 things in six styles; {_total(_DOMAIN_NET_CLEANED)} images without duplicates",
        domains=("clip", "info", "paint", "quick", "real", "sketch"),
        folders=("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        roots=("domain_net", "DomainNet"),
        class_folders=DOMAIN_NET_CLASSES,
        may_lack={"painting": ("t-shirt",)},  # all ten of them are on the list of duplicates
        duplicates="domain_net_duplicates.txt",
        split_lists={"train": "{}_train.txt", "test": "{}_test.txt"},
        archives=tuple(
            Archive(url=f"{_VISDA_2019}/{place}", file=place.rpartition("/")[2], into="domain_net")
            for place in (
                "groundtruth/clipart.zip",
                "infograph.zip",
                "groundtruth/painting.zip",
                "quickdraw.zip",
                "real.zip",
                "sketch.zip",
            )
        ),
        by_hand=(
            "Official splits (for the protocols that use them): put <domain>_train.txt and <domain>_test.txt of all six "
            "domains, from the same site, beside the domains' folders or into domain_net/splits/",
            "Duplicates: put DomainBed's domainbed/misc/domain_net_duplicates.txt into domain_net/, or delete the files "
            "that it lists",
        ),
        oddities=("Labels in the official lists follow another order than the folders; CLIPBed joins by folder name",),
        versions=(
            Version("cleaned", _DOMAIN_NET_CLEANED),
            Version(
                "with duplicates",
                _DOMAIN_NET_WHOLE,
                f"the copy holds the {sum(_DOMAIN_NET_WHOLE) - sum(_DOMAIN_NET_CLEANED):,} duplicates that DomainBed "
                "deletes; its domain_net_duplicates.txt beside the domains leaves them out",
            ),
        ),
        source=(
            "http://csr.bu.edu/ftp/visda/2019/multi-source/ (groundtruth/clipart.zip, infograph.zip, "
            "groundtruth/painting.zip, quickdraw.zip, real.zip, sketch.zip; 20 GB); list of duplicates: "
            "https://github.com/facebookresearch/DomainBed, domainbed/misc/domain_net_duplicates.txt"
        ),
        licence="fair use; research only",
        citation="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019",
    ),
)

datasets.add(
    "SVIRO",
    ImageFolders(
        name="SVIRO",
        summary="what sits on the rear seats of ten cars, rendered; 56,000 images",
        domains=("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
        folders=("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
        roots=("sviro", "SVIRO_DOMAINBED"),
        class_folders=("0", "1", "2", "3", "4", "5", "6"),
        class_names=(  # the folders are numbers; these words are ours, after the classes' descriptions at the source
            "empty seat",
            "infant in an infant seat",
            "child in a child seat",
            "adult passenger",
            "everyday object on a seat",
            "empty infant seat",
            "empty child seat",
        ),
        total=56000,
        source="https://sviro.kl.dfki.de/?wpdmdl=1731 (SVIRO_DOMAINBED.zip)",
        archives=(Archive(url="https://sviro.kl.dfki.de/?wpdmdl=1731", file="SVIRO_DOMAINBED.zip"),),
        licence="CC BY-NC-SA 4.0",
        citation="Dias Da Cruz et al., SVIRO: Synthetic Vehicle Interior Rear Seat Occupancy, WACV 2020",
    ),
)
