// Runs signatures of a SavedModel as TF Serving does: LoadSavedModel in C++, XLA compilation disabled, no Python.
//
//   serve MODEL FOLDER
//
// FOLDER holds serialized TensorProtos named <signature>/<input>.in.pb. For every signature that has a folder, all
// outputs are written beside them as <output>.out.pb, or `error.txt` where the call fails; `signatures.txt` lists all
// signatures of the model. The exit code is 0 unless the model cannot be loaded or a file cannot be read.

#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/compiler/jit/flags.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace fs = std::filesystem;

// The input of a signature that is called `name`, read from its file.
static tensorflow::Tensor Read(const fs::path& file) {
  tensorflow::TensorProto proto;
  std::ifstream stream(file, std::ios::binary);
  tensorflow::Tensor tensor;
  if (!proto.ParseFromIstream(&stream) || !tensor.FromProto(proto)) {
    std::cerr << "no tensor for an input: " << file << "\n";
    std::exit(2);
  }
  return tensor;
}

static void Call(tensorflow::Session* session, const tensorflow::SignatureDef& signature, const fs::path& folder) {
  std::vector<std::pair<std::string, tensorflow::Tensor>> inputs;
  for (const auto& [name, info] : signature.inputs()) inputs.emplace_back(info.name(), Read(folder / (name + ".in.pb")));
  std::vector<std::string> names, tensors;
  for (const auto& [name, info] : signature.outputs()) {
    names.push_back(name);
    tensors.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> outputs;
  const auto status = session->Run(inputs, tensors, {}, &outputs);
  if (!status.ok()) {
    std::ofstream(folder / "error.txt") << status.ToString();
    return;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    tensorflow::TensorProto proto;
    outputs[i].AsProtoField(&proto);
    std::ofstream stream(folder / (names[i] + ".out.pb"), std::ios::binary);
    proto.SerializeToOstream(&stream);
  }
}

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: serve MODEL FOLDER\n";
    return 2;
  }
  tensorflow::DisableXlaCompilation();
  tensorflow::SavedModelBundle bundle;
  // The literals of the constants, whose headers the wheel does not ship.
  const auto status = tensorflow::LoadSavedModel({}, {}, arguments[1], {"serve"}, &bundle);
  if (!status.ok()) {
    std::cerr << status.ToString() << "\n";
    return 1;
  }
  const fs::path folder = arguments[2];
  std::ofstream listed(folder / "signatures.txt");
  for (const auto& [name, signature] : bundle.GetSignatures()) {
    listed << name << "\n";
    if (fs::is_directory(folder / name)) Call(bundle.GetSession(), signature, folder / name);
  }
  return 0;
}
