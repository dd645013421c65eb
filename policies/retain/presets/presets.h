// One function for each preset but `full`, defined in the file of its method.
#ifndef TIDEPOOL_POLICIES_RETAIN_PRESETS_PRESETS_H_
#define TIDEPOOL_POLICIES_RETAIN_PRESETS_PRESETS_H_

#include "policies/retain/preset_table.h"

namespace tidepool {

Preset StreamingPreset();          // streaming.cc
Preset SnapKvPreset();             // snapkv.cc
Preset PyramidKvPreset();          // snapkv.cc
Preset AdaSnapKvPreset();          // snapkv.cc
Preset AdaPyramidKvPreset();       // snapkv.cc
Preset H2oPreset();                // h2o.cc
Preset D2oPreset();                // h2o.cc
Preset TovaPreset();               // tova.cc
Preset LightTransferPreset();      // lighttransfer.cc
Preset SimLayerKvPreset();         // lighttransfer.cc
Preset AhaKvPreset();              // ahakv.cc
Preset KeyformerPreset();          // keyformer.cc
Preset ExpectedAttentionPreset();  // expected_attention.cc
Preset CormPreset();               // corm.cc
Preset ElasticPreset();            // elastic.cc
Preset PrefixKvPreset();           // elastic.cc
Preset ZipVlPreset();              // elastic.cc
Preset FastGenPreset();            // fastgen.cc
Preset KvZipPreset();              // kvzip.cc

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_PRESETS_PRESETS_H_
