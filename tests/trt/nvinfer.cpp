// A stand-in for TensorRT's core library, for machines where the real one cannot be had: just enough of its runtime half
// for NVIDIA's own Python bindings to load a plan of ours and to run it. It proves calls, their order and what becomes of
// failures; never numbers, speed, or what the real library accepts.
//
// What the bindings hold is an object of two words, its own virtual table and a pointer to an implementation, whose
// virtual functions they call by position. Positions follow from the order of the names below, as the public headers of
// major versions 10 and 11 have them; a position that nobody filled prints its name and aborts.
//
//   c++ -std=c++17 -shared -fPIC -DMAJOR=10 -Wl,-soname,libnvinfer.so.10 -o libnvinfer.so.10 nvinfer.cpp -ldl
//
// A plan is text, a statement a line:
//   EDGED STAND-IN                     the first line
//   input NAME TYPE D,D,...            TYPE: float32 float16 int8 uint8; -1 for the batch
//   output NAME TYPE D,D,...
//   memory BYTES                       activation memory
//   add N                              an output's bytes are (sum of the input's bytes + N) & 63
//   slow load|context|run|free MS      how long that takes
//   fail load|context|shape|run        that is refused, with a line in the log
//   layer JSON                         one layer of the inspector's answer
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if MAJOR == 10
#define ONLY_10(names) " " names " "
#else
#define ONLY_10(names) " "
#endif

namespace {

// ---- virtual tables by name

constexpr int kMost = 96;
constexpr int kDestructors = 2;  // every table begins with the two entries of the destructor
using Functions = std::map<std::string, void*>;

template <int Kind> std::vector<std::string>& order() {
    static std::vector<std::string> names;
    return names;
}
template <int Kind, int Position> void unfilled() {
    auto const& names = order<Kind>();
    int at = Position - kDestructors;
    std::fprintf(stderr, "stand-in: %s is called, which it does not play\n",
        at >= 0 && at < int(names.size()) ? names[at].c_str() : "something unknown");
    std::abort();
}
template <int Kind, int... P> void** table(char const* names, Functions const& filled, std::integer_sequence<int, P...>) {
    static void* entries[kMost] = {reinterpret_cast<void*>(&unfilled<Kind, P>)...};
    std::istringstream words(names);
    for (std::string word; words >> word;) {
        order<Kind>().push_back(word);
        auto found = filled.find(word);
        if (found != filled.end()) entries[kDestructors + order<Kind>().size() - 1] = found->second;
    }
    return entries;
}
template <int Kind> void** table(char const* names, Functions const& filled) {
    return table<Kind>(names, filled, std::make_integer_sequence<int, kMost>{});
}
template <class F> void* at(F* function) { return reinterpret_cast<void*>(function); }

struct Implementation { void** functions; void* owner; };
struct Object {  // as the bindings see it
    Implementation* implementation = nullptr;
    Implementation own{};
    virtual ~Object() = default;
};
// the pointer to the implementation must directly follow the virtual table
static_assert(sizeof(Implementation) == 16, "two words");

// ---- the log, the faults, CUDA

std::mutex gLock;
std::string gFaults;
bool gCapturing = false;

void fault(std::string const& what) {
    std::lock_guard<std::mutex> hold(gLock);
    gFaults += what + "\n";
}

enum Severity { kError = 1, kWarning = 2 };
void tell(void* logger, Severity severity, std::string const& text) {
    if (logger == nullptr) return;
    constexpr int position = MAJOR == 10 ? 0 : 4;
    auto functions = *static_cast<void***>(logger);
    reinterpret_cast<void (*)(void*, int32_t, char const*)>(functions[position])(logger, severity, text.c_str());
}

using Memset = int (*)(uint64_t, unsigned char, size_t, void*);
Memset onGpu() {  // with STAND_IN_CUDA=1 addresses are the GPU's, and work goes to the caller's stream
    static Memset found = [] {
        char const* wanted = std::getenv("STAND_IN_CUDA");
        void* driver = wanted != nullptr && *wanted == '1' ? dlopen("libcuda.so.1", RTLD_NOW) : nullptr;
        return driver != nullptr ? reinterpret_cast<Memset>(dlsym(driver, "cuMemsetD8Async")) : nullptr;
    }();
    return found;
}

// ---- what a plan says

struct Dims { int32_t count; int64_t side[8]; };
struct Tensor { std::string name; int type; Dims dims; bool input; };
struct Type { char const* name; int code; int bytes; };
constexpr Type kTypes[] = {{"float32", 0, 4}, {"float16", 1, 2}, {"int8", 2, 1}, {"uint8", 5, 1}};

int bytesOf(int code) {
    for (auto const& type : kTypes)
        if (type.code == code) return type.bytes;
    return 1;
}
size_t volume(Dims const& dims) {
    size_t product = 1;
    for (int k = 0; k < dims.count; ++k) product *= size_t(dims.side[k] < 0 ? 1 : dims.side[k]);
    return product;
}

struct Plan {
    std::vector<Tensor> tensors;
    std::map<std::string, int> slowMs;
    std::set<std::string> fails;
    std::string layers;
    int64_t memory = 0;
    unsigned add = 0;

    void pause(char const* what) const {
        auto found = slowMs.find(what);
        if (found != slowMs.end()) std::this_thread::sleep_for(std::chrono::milliseconds(found->second));
    }
    Tensor const* find(char const* name) const {
        for (auto const& tensor : tensors)
            if (tensor.name == name) return &tensor;
        return nullptr;
    }
    bool read(std::string const& text) {
        std::istringstream lines(text);
        std::string line;
        if (!std::getline(lines, line) || line != "EDGED STAND-IN") return false;
        while (std::getline(lines, line)) statement(line);
        return true;
    }
    void statement(std::string const& line) {
        std::istringstream words(line);
        std::string what, name;
        words >> what;
        if (what == "input" || what == "output") {
            std::string type, sides;
            Tensor tensor{};
            words >> tensor.name >> type >> sides;
            for (auto const& known : kTypes)
                if (type == known.name) tensor.type = known.code;
            std::istringstream numbers(sides);
            for (std::string side; std::getline(numbers, side, ',');) tensor.dims.side[tensor.dims.count++] = std::stoll(side);
            tensor.input = what == "input";
            tensors.push_back(tensor);
        } else if (what == "memory") words >> memory;
        else if (what == "add") words >> add;
        else if (what == "fail") { words >> name; fails.insert(name); }
        else if (what == "slow") { words >> name; words >> slowMs[name]; }
        else if (what == "layer") layers += (layers.empty() ? "" : ",") + line.substr(6);
    }
};

// ---- the objects: a runtime makes engines, an engine makes contexts and inspectors

struct Runtime : Object { void* logger = nullptr; int engines = 0; ~Runtime() override; };
struct Engine : Object { Plan plan; Runtime* runtime = nullptr; int contexts = 0; ~Engine() override; };
struct Context : Object {
    Engine* engine = nullptr;
    std::map<std::string, unsigned char*> addresses;
    std::map<std::string, Dims> shapes;
    unsigned char* memory = nullptr;
    int64_t memoryBytes = 0;
    ~Context() override;
};
struct Inspector : Object { Engine* engine = nullptr; std::string answer; };

template <class T> T* self(void* implementation) { return static_cast<T*>(static_cast<Implementation*>(implementation)->owner); }
template <class T> T* make(void** functions) {
    auto* made = new T;
    made->own = {functions, made};
    made->implementation = &made->own;
    return made;
}

Runtime::~Runtime() { if (engines) fault("the runtime is freed before its engines"); }
Engine::~Engine() {
    if (contexts) fault("an engine is freed before its contexts");
    plan.pause("free");
    --runtime->engines;
}
Context::~Context() {
    engine->plan.pause("free");
    --engine->contexts;
}

// ---- contexts

Dims shapeOf(Context* context, char const* name) {
    Tensor const* tensor = context->engine->plan.find(name);
    if (tensor == nullptr) return {-1, {}};
    Dims dims = context->shapes.count(name) ? context->shapes[name] : tensor->dims;
    for (auto const& [input, given] : context->shapes)  // an open batch is that of the input
        if (!tensor->input && dims.count && dims.side[0] < 0 && given.count) dims.side[0] = given.side[0];
    return dims;
}

bool enqueue(void* p, void* stream) {
    static std::map<void*, Context*> busy;
    auto* context = self<Context>(p);
    auto const& plan = context->engine->plan;
    void* logger = context->engine->runtime->logger;
    if (plan.fails.count("run")) { tell(logger, kError, "enqueueV3: Cuda Runtime (an illegal memory access was encountered)"); return false; }
    for (auto const& tensor : plan.tensors) {
        if (!context->addresses.count(tensor.name)) { tell(logger, kError, "enqueueV3: no address for " + tensor.name); return false; }
        Dims dims = shapeOf(context, tensor.name.c_str());
        if (dims.side[0] < 0) { tell(logger, kError, "enqueueV3: no shape for " + tensor.name); return false; }
    }
    if (plan.memory && (context->memory == nullptr || context->memoryBytes < plan.memory)) {
        tell(logger, kError, "enqueueV3: not enough activation memory");
        return false;
    }
    if (gCapturing) return true;
    if (auto memset = onGpu()) {
        if (plan.memory) memset(uint64_t(context->memory), 1, size_t(plan.memory), stream);
        for (auto const& tensor : plan.tensors)
            if (!tensor.input && memset(uint64_t(context->addresses[tensor.name]), (unsigned char)(plan.add & 63),
                    volume(shapeOf(context, tensor.name.c_str())) * bytesOf(tensor.type), stream)) return false;
        return true;
    }
    {
        std::lock_guard<std::mutex> hold(gLock);
        if (plan.memory && busy[context->memory] != nullptr) gFaults += "two contexts compute in the same memory at once\n";
        busy[context->memory] = context;
    }
    plan.pause("run");
    if (plan.memory) std::memset(context->memory, 1, size_t(plan.memory));
    unsigned sum = plan.add;
    for (auto const& tensor : plan.tensors)
        if (tensor.input) {
            size_t bytes = volume(shapeOf(context, tensor.name.c_str())) * bytesOf(tensor.type);
            unsigned char const* from = context->addresses[tensor.name];
            for (size_t k = 0; k < bytes; ++k) sum += from[k];
        }
    for (auto const& tensor : plan.tensors)
        if (!tensor.input)
            std::memset(context->addresses[tensor.name], int(sum & 63), volume(shapeOf(context, tensor.name.c_str())) * bytesOf(tensor.type));
    std::lock_guard<std::mutex> hold(gLock);
    busy.erase(context->memory);
    return true;
}
bool setAddress(void* p, char const* name, void* address) {
    auto* context = self<Context>(p);
    if (context->engine->plan.find(name) == nullptr) return false;
    if (reinterpret_cast<uintptr_t>(address) & 255) fault(std::string("the address of ") + name + " is not a multiple of 256");
    context->addresses[name] = static_cast<unsigned char*>(address);
    return true;
}
bool setShape(void* p, char const* name, Dims const& dims) {
    auto* context = self<Context>(p);
    auto const& plan = context->engine->plan;
    Tensor const* tensor = plan.find(name);
    bool fits = tensor != nullptr && tensor->input && dims.count == tensor->dims.count && !plan.fails.count("shape");
    for (int k = 0; fits && k < dims.count; ++k) fits = tensor->dims.side[k] < 0 || tensor->dims.side[k] == dims.side[k];
    if (!fits) { tell(context->engine->runtime->logger, kError, std::string("setInputShape: the profile does not allow it for ") + name); return false; }
    context->shapes[name] = dims;
    return true;
}
int inferShapes(void* p, int most, char const** names) {
    auto* context = self<Context>(p);
    int missing = 0;
    for (auto const& tensor : context->engine->plan.tensors)
        if (tensor.input && shapeOf(context, tensor.name.c_str()).side[0] < 0) {
            if (missing < most) names[missing] = tensor.name.c_str();
            ++missing;
        }
    return missing;
}
void setMemory(void* p, void* memory, int64_t bytes) {
    self<Context>(p)->memory = static_cast<unsigned char*>(memory);
    self<Context>(p)->memoryBytes = bytes;
}
void setMemoryAlone(void* p, void* memory) { setMemory(p, memory, self<Context>(p)->engine->plan.memory); }
void* engineOf(void* p) { return static_cast<Object*>(self<Context>(p)->engine); }
Dims contextShape(void* p, char const* name) { return shapeOf(self<Context>(p), name); }
void nothing(void*, void*) {}

void** contextTable() {
    static void** made = table<2>(
        "getPImpl setDebugSync getDebugSync setProfiler getProfiler getEngine setName getName setDeviceMemory "
        "getOptimizationProfile allInputDimensionsSpecified" ONLY_10("allInputShapesSpecified")
        "setErrorRecorder getErrorRecorder executeV2 setOptimizationProfileAsync setEnqueueEmitsProfile "
        "getEnqueueEmitsProfile reportToProfiler setInputShape getTensorShape getTensorStrides setTensorAddress "
        "getTensorAddress setInputTensorAddress setOutputTensorAddress inferShapes setInputConsumedEvent "
        "getInputConsumedEvent getOutputTensorAddress setOutputAllocator getOutputAllocator getMaxOutputSize "
        "setTemporaryStorageAllocator getTemporaryStorageAllocator enqueueV3 setPersistentCacheLimit "
        "getPersistentCacheLimit setNvtxVerbosity getNvtxVerbosity setAuxStreams setDebugListener getDebugListener "
        "setTensorDebugState getDebugState setAllTensorsDebugState updateDeviceMemorySizeForShapes setDeviceMemoryV2",
        {{"enqueueV3", at(enqueue)}, {"setTensorAddress", at(setAddress)}, {"setInputShape", at(setShape)},
            {"inferShapes", at(inferShapes)}, {"setDeviceMemoryV2", at(setMemory)}, {"setDeviceMemory", at(setMemoryAlone)},
            {"getTensorShape", at(contextShape)}, {"getEngine", at(engineOf)}, {"setErrorRecorder", at(nothing)}});
    return made;
}

// ---- engines

void* createContext(void* p, int strategy) {
    auto* engine = self<Engine>(p);
    engine->plan.pause("context");
    if (strategy != 2) fault("a context is made that owns its memory");
    if (engine->plan.fails.count("context")) { tell(engine->runtime->logger, kError, "createExecutionContext: out of memory"); return nullptr; }
    auto* context = make<Context>(contextTable());
    context->engine = engine;
    ++engine->contexts;
    return static_cast<Object*>(context);
}
char const* inspect(void* p, int) {
    auto* inspector = self<Inspector>(p);
    inspector->answer = "{\"Layers\": [" + inspector->engine->plan.layers + "]}";
    return inspector->answer.c_str();
}
void* createInspector(void* p) {
    static void** functions = table<3>(
        "getPImpl setExecutionContext getExecutionContext getLayerInformation getEngineInformation",
        {{"getEngineInformation", at(inspect)}, {"setExecutionContext", at(nothing)}});
    auto* inspector = make<Inspector>(functions);
    inspector->engine = self<Engine>(p);
    return static_cast<Object*>(inspector);
}
Dims engineShape(void* p, char const* name) {
    auto* tensor = self<Engine>(p)->plan.find(name);
    return tensor != nullptr ? tensor->dims : Dims{-1, {}};
}
int engineType(void* p, char const* name) {
    auto* tensor = self<Engine>(p)->plan.find(name);
    return tensor != nullptr ? tensor->type : 0;
}
int engineMode(void* p, char const* name) {
    auto* tensor = self<Engine>(p)->plan.find(name);
    return tensor == nullptr ? 0 : tensor->input ? 1 : 2;
}
int engineTensors(void* p) { return int(self<Engine>(p)->plan.tensors.size()); }
char const* engineTensor(void* p, int index) { return self<Engine>(p)->plan.tensors.at(size_t(index)).name.c_str(); }
int64_t engineMemory(void* p) { return self<Engine>(p)->plan.memory; }

void** engineTable() {
    static void** made = table<1>(
        "getPImpl getNbLayers serialize createExecutionContext"
        ONLY_10("createExecutionContextWithoutDeviceMemory getDeviceMemorySize")
        "isRefittable getName getNbOptimizationProfiles" ONLY_10("getProfileTensorValues")
        "getEngineCapability setErrorRecorder getErrorRecorder" ONLY_10("hasImplicitBatchDimension")
        "getTacticSources getProfilingVerbosity createEngineInspector getTensorShape getTensorDataType getTensorLocation "
        "isShapeInferenceIO getTensorIOMode getTensorBytesPerComponent getTensorComponentsPerElement getTensorFormat "
        "getTensorFormatDesc getTensorVectorizedDim getProfileShape getNbIOTensors getIOTensorName "
        "getHardwareCompatibilityLevel getNbAuxStreams getTensorBytesPerComponentV2 getTensorComponentsPerElementV2 "
        "getTensorFormatV2 getTensorFormatDescV2 getTensorVectorizedDimV2 createSerializationConfig serializeWithConfig"
        ONLY_10("getDeviceMemorySizeForProfile") "createRefitter"
        ONLY_10("setWeightStreamingBudget getWeightStreamingBudget getMinimumWeightStreamingBudget")
        "getStreamableWeightsSize isDebugTensor setWeightStreamingBudgetV2 getWeightStreamingBudgetV2 "
        "getWeightStreamingAutomaticBudget getWeightStreamingScratchMemorySize getDeviceMemorySizeV2",
        {{"createExecutionContext", at(createContext)}, {"createEngineInspector", at(createInspector)},
            {"getTensorShape", at(engineShape)}, {"getTensorDataType", at(engineType)}, {"getTensorIOMode", at(engineMode)},
            {"getNbIOTensors", at(engineTensors)}, {"getIOTensorName", at(engineTensor)},
            {"getDeviceMemorySizeV2", at(engineMemory)}, {"setErrorRecorder", at(nothing)}});
    return made;
}

// ---- the runtime

void* deserialize(void* p, void const* bytes, size_t size) {
    auto* runtime = self<Runtime>(p);
    auto* engine = make<Engine>(engineTable());
    engine->runtime = runtime;
    ++runtime->engines;
    bool read = engine->plan.read(std::string(static_cast<char const*>(bytes), size));
    engine->plan.pause("load");
    if (read && !engine->plan.fails.count("load")) return static_cast<Object*>(engine);
    tell(runtime->logger, kError, read ? "deserializeCudaEngine: the serialized engine is of another version" : "deserializeCudaEngine: magic tag does not match");
    delete engine;
    return nullptr;
}
void* loggerOf(void* p) { return self<Runtime>(p)->logger; }

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void* logger, int32_t) {
    if (std::getenv("STAND_IN_NO_RUNTIME") != nullptr) { tell(logger, kError, "CUDA initialization failure with error: 35"); return nullptr; }
    static void** functions = table<0>(
        "getPImpl deserializeCudaEngine" ONLY_10("deserializeFromReader")
        "setDLACore getDLACore getNbDLACores setGpuAllocator setErrorRecorder getErrorRecorder getLogger",
        {{"deserializeCudaEngine", at(deserialize)}, {"getLogger", at(loggerOf)}, {"setErrorRecorder", at(nothing)}});
    auto* runtime = make<Runtime>(functions);
    runtime->logger = logger;
    return static_cast<Object*>(runtime);
}

// What was done wrong so far, a line each; the caller is to have none.
char const* stand_in_faults() {
    static std::string told;
    std::lock_guard<std::mutex> hold(gLock);
    told = std::exchange(gFaults, {});
    return told.c_str();
}
// Between two of these, nothing that is enqueued runs, as on a stream that is being captured.
void stand_in_capture(int on) { gCapturing = on != 0; }

// What the bindings also want to find.
void* createInferBuilder_INTERNAL(void*, int32_t) { return nullptr; }
void* createInferRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
void* createNvOnnxParser_INTERNAL(void*, void*, int32_t) { return nullptr; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
int getNvOnnxParserVersion() { return 0; }
int getInferLibVersion() { return MAJOR * 10000; }
void* getPluginRegistry() { return nullptr; }
void* getBuilderPluginRegistry(int) { return nullptr; }
bool initLibNvInferPlugins(void*, char const*) { return true; }
void* getLogger() { return nullptr; }

}
